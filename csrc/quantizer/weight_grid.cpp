// SPDX-License-Identifier: BSD-3-Clause
#include "quantizer/weight_grid.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "core/types.h"

namespace aimetpp::quantizer {
namespace {

// How far a product rounded to float32, over a step rounded to float32, may be
// from a whole number, relative to that number.
constexpr double kTolerance = 0x1p-22;

// Random values lie on some grid once in so many channels.
constexpr double kEvidence = 1e9;

using Multiples = std::array<bool, (1 << (kMaxGridBitwidth - 1)) + 1>;

// Marks the magnitude of the multiple that each value is; false where one is
// none.
bool find_multiples(const float* values, std::int64_t count, double step,
                    QuantGrid grid, Multiples& found) {
  for (std::int64_t i = 0; i < count; ++i) {
    const double ratio = double{values[i]} / step;
    const double multiple = std::nearbyint(ratio);
    if (!(std::abs(ratio - multiple) <= std::abs(multiple) * kTolerance) ||
        multiple < static_cast<double>(grid.qmin) ||
        multiple > static_cast<double>(grid.qmax)) {
      return false;
    }
    found[static_cast<std::size_t>(std::abs(multiple))] = true;
  }
  return true;
}

// `others`: different magnitudes that are multiples beside zero and the one
// that the step was taken from. Of random values one in 1 / (2 * largest *
// kTolerance) is near a multiple, for each of `largest` steps tried.
bool is_evidence(int others, std::int64_t largest) {
  const auto tried = static_cast<double>(largest);
  return others * -std::log(2 * tried * kTolerance) >=
         std::log(tried * kEvidence);
}

float find_step(const float* values, std::int64_t count, QuantGrid grid) {
  float low = 0;
  float high = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    if (!std::isfinite(values[i])) return 0;
    low = std::min(low, values[i]);
    high = std::max(high, values[i]);
  }
  const double magnitude = std::max(-double{low}, double{high});
  if (magnitude < double{std::numeric_limits<float>::min()}) return 0;
  for (std::int64_t largest = 1; largest <= -grid.qmin; ++largest) {
    const double step = magnitude / static_cast<double>(largest);
    Multiples found{};
    if (!find_multiples(values, count, step, grid, found)) continue;
    int others = -1;
    for (std::size_t i = 1; i < found.size(); ++i) others += found[i] ? 1 : 0;
    return is_evidence(others, largest) ? static_cast<float>(step) : 0;
  }
  return 0;
}

}  // namespace

std::vector<float> find_grid_steps(const float* values, std::int64_t channels,
                                   std::int64_t count, int bitwidth,
                                   const ParallelFor& parallel_for) {
  if (bitwidth > kMaxGridBitwidth) {
    raise_value_error("weight grid: bitwidth must be ", kMaxGridBitwidth,
                      " or less, got ", bitwidth);
  }
  const QuantGrid grid = integer_grid(bitwidth, /*symmetric=*/true);
  std::vector<float> steps(static_cast<std::size_t>(channels));
  constexpr std::int64_t kChannelsPerThread = 64;
  parallel_for(channels, kChannelsPerThread,
               [&](std::int64_t begin, std::int64_t end) {
                 for (std::int64_t channel = begin; channel < end; ++channel) {
                   steps[static_cast<std::size_t>(channel)] =
                       find_step(values + channel * count, count, grid);
                 }
               });
  return steps;
}

}  // namespace aimetpp::quantizer
