// SPDX-License-Identifier: BSD-3-Clause
#include "quantizer/encoding.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "core/quant_math.h"

namespace aimetpp::quantizer {
namespace {

// Widens [min, max], which holds zero, so that one step is min_scale at least.
void widen_if_narrow(float& min, float& max, std::int64_t num_steps,
                     bool around_zero) {
  const float narrowest = static_cast<float>(min_scale(num_steps));
  if (!((max - min) / static_cast<float>(num_steps) < narrowest)) return;
  const std::int64_t above = around_zero ? num_steps / 2 : num_steps;
  max += static_cast<float>(above) * narrowest;
  min -= static_cast<float>(num_steps - above) * narrowest;
}

// The smallest range of equal steps around zero that holds [min, max].
void balance(float& min, float& max, std::int64_t num_steps) {
  const std::int64_t above = num_steps / 2;
  const std::int64_t below = num_steps - above;
  const std::int64_t counted_above = num_steps == 3 ? above + 1 : above;
  const float delta = std::max(max / static_cast<float>(counted_above),
                               -min / static_cast<float>(below));
  min = static_cast<float>(-below) * delta;
  max = static_cast<float>(above) * delta;
}

template <typename Compute>
Encoding encode(Range range, QuantGrid grid, bool symmetric) {
  const AffineGrid<Compute> affine = make_affine_grid<Compute>(
      static_cast<Compute>(range.min), static_cast<Compute>(range.max),
      grid.qmin, grid.qmax, symmetric);
  return {
      .scale = static_cast<double>(affine.scale),
      .offset = static_cast<std::int64_t>(affine.offset),
      .min = static_cast<double>(affine.scale * (affine.offset + affine.qmin)),
      .max = static_cast<double>(affine.scale * (affine.offset + affine.qmax))};
}

}  // namespace

QuantGrid grid_of_range(Range range, int bitwidth, Symmetry symmetry) {
  switch (symmetry) {
    case Symmetry::asymmetric:
      return integer_grid(bitwidth, false);
    case Symmetry::unsigned_symmetric:
      return integer_grid(bitwidth, range.min < 0);
    case Symmetry::symmetric:
    case Symmetry::strict_symmetric:
      break;
  }
  QuantGrid grid = integer_grid(bitwidth, true);
  if (symmetry == Symmetry::strict_symmetric) ++grid.qmin;
  return grid;
}

Range range_from_min_max(double min, double max, int bitwidth,
                         Symmetry symmetry) {
  if (!(min <= max)) {
    raise_value_error("range: min must not exceed max, got [", min, ", ", max,
                      "]");
  }
  const QuantGrid grid = grid_of_range({min, max}, bitwidth, symmetry);
  const std::int64_t num_steps = grid.num_steps();
  const bool around_zero = grid.qmin < 0;
  float low = std::min(static_cast<float>(min), 0.0F);
  float high = std::max(static_cast<float>(max), 0.0F);
  widen_if_narrow(low, high, num_steps, around_zero);
  if (around_zero) balance(low, high, num_steps);
  constexpr float kLargest = std::numeric_limits<float>::max();
  return {static_cast<double>(std::max(low, -kLargest)),
          static_cast<double>(std::min(high, kLargest))};
}

Encoding encoding_of_range(Range range, int bitwidth, Symmetry symmetry) {
  if (!std::isfinite(range.min) || !std::isfinite(range.max)) {
    raise_value_error("encoding: min and max must be finite, got [", range.min,
                      ", ", range.max, "]");
  }
  const QuantGrid grid = grid_of_range(range, bitwidth, symmetry);
  const bool symmetric = grid.qmin < 0;
  return needs_double(grid.qmin, grid.qmax)
             ? encode<double>(range, grid, symmetric)
             : encode<float>(range, grid, symmetric);
}

}  // namespace aimetpp::quantizer
