// SPDX-License-Identifier: BSD-3-Clause
// The fake-quantization formula and its gradients, written once: the CPU and
// the CUDA loops only index, every number comes from here.
//
// Notation: a grid of integers qmin..qmax of N = qmax - qmin steps; a real
// range [min, max]; an element x of the quantized tensor.
//
//   scale  = (max - min) / N, its magnitude at least min_scale(N)
//   offset = -round((qmin + qmax) / 2)                          symmetric
//          = clamp(round(min / scale) - qmin, -qmax, -qmin)     asymmetric
//   quantize:       q = clamp(round(x / scale) - offset, qmin, qmax)
//   dequantize:     y = (q + offset) * scale
//   fake_quantize:  dequantize(quantize(x))
//
// round is half-to-even. An infinite x saturates at the end of the grid, a NaN
// stays a NaN. max < min gives a negative scale and is computed as written.
//
// Precision. `Compute` is float, whatever float16, bfloat16 or float32 tensor x
// comes from; a 16-bit float result is rounded once, on its way out. (Computing
// in the 16-bit type itself, as a chain of tensor operations would, loses steps
// of the grid.) double is used for float64 tensors, and where float is too
// coarse for the grid: see needs_double.
//
// Compile users of this header without fused multiply-add contraction and
// without fast-math (-ffp-contract=off, nvcc --fmad=false): then every device
// and instruction set gives the same bits.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <type_traits>

#include "core/macros.h"

#define AIMETPP_FORMULA AIMETPP_HOST_DEVICE AIMETPP_ALWAYS_INLINE

namespace aimetpp {

enum class QuantMode : std::uint8_t { fake_quantize, quantize, dequantize };

// A grid with the real numbers it stands for: integer q is (q + offset) *
// scale.
template <typename Compute>
struct AffineGrid {
  Compute scale;
  Compute offset;
  Compute qmin;
  Compute qmax;
};

// What the integers of a grid say by themselves, for all ranges alike.
template <typename Compute>
struct GridSteps {
  Compute qmin;
  Compute qmax;
  Compute count;      // N
  Compute min_scale;  // of that many steps
  Compute symmetric_offset;
};

// What one element adds to the gradients. dL/dscale and dL/doffset are the sums
// of the terms over the elements that share a scale, times the factors of
// finish_sums: what is common to all elements is multiplied once.
template <typename Compute>
struct ElementGradient {
  Compute x;  // dL/dx, complete
  Compute scale_term;
  Compute offset_term;
};

struct RangeGradient {
  double min;
  double max;
};

// float has 24 bits: where a quarter of a step of [0, 1] is below its epsilon,
// 2^-23, that is from 22-bit grids on, the formula needs double.
AIMETPP_FORMULA bool needs_double(std::int64_t qmin, std::int64_t qmax) {
  return qmax - qmin > (std::int64_t{1} << 21);
}

// The smallest scale in use: keeps x / scale finite for an empty range.
AIMETPP_FORMULA double min_scale(std::int64_t num_steps) {
  constexpr double kFloatEpsilon = 1.1920928955078125e-07;
  const double by_steps = 0.01 / static_cast<double>(num_steps);
  return by_steps < kFloatEpsilon ? by_steps : kFloatEpsilon;
}

// Unlike fmin and fmax, keeps a NaN.
template <typename Compute>
AIMETPP_FORMULA Compute clamp_keep_nan(Compute value, Compute low,
                                       Compute high) {
  const Compute raised = value < low ? low : value;
  return raised > high ? high : raised;
}

// keep ? value : 0. On the host by a mask of bits: compilers turn the plain
// choice into a branch, and then do not vectorize the loop around it.
template <typename Compute>
AIMETPP_FORMULA Compute zero_unless(bool keep, Compute value) {
#if defined(__CUDA_ARCH__)
  return keep ? value : Compute{0};
#else
  using Bits = std::conditional_t<sizeof(Compute) == sizeof(std::int32_t),
                                  std::int32_t, std::int64_t>;
  const Bits mask = -static_cast<Bits>(keep);
  return std::bit_cast<Compute>(std::bit_cast<Bits>(value) & mask);
#endif
}

template <typename Compute>
AIMETPP_FORMULA Compute unclamped_offset(Compute min, Compute scale,
                                         Compute qmin) {
  return std::rint(min / scale) - qmin;
}

// Requires qmin < qmax.
template <typename Compute>
AIMETPP_FORMULA GridSteps<Compute> make_grid_steps(std::int64_t qmin,
                                                   std::int64_t qmax) {
  const std::int64_t num_steps = qmax - qmin;
  return {static_cast<Compute>(qmin), static_cast<Compute>(qmax),
          static_cast<Compute>(num_steps),
          static_cast<Compute>(min_scale(num_steps)),
          // 0 - value, not -value: the offset of a standard grid is +0.
          0 - std::rint(static_cast<Compute>(qmin + qmax) / Compute{2})};
}

template <typename Compute>
AIMETPP_FORMULA AffineGrid<Compute> make_affine_grid(
    Compute min, Compute max, const GridSteps<Compute>& steps, bool symmetric) {
  Compute scale = (max - min) / steps.count;
  if (scale >= 0 && scale < steps.min_scale) scale = steps.min_scale;
  if (scale < 0 && -scale < steps.min_scale) scale = -steps.min_scale;
  const Compute offset =
      symmetric ? steps.symmetric_offset
                : clamp_keep_nan(unclamped_offset(min, scale, steps.qmin),
                                 -steps.qmax, -steps.qmin);
  return {scale, offset, steps.qmin, steps.qmax};
}

// Requires qmin < qmax.
template <typename Compute>
AIMETPP_FORMULA AffineGrid<Compute> make_affine_grid(Compute min, Compute max,
                                                     std::int64_t qmin,
                                                     std::int64_t qmax,
                                                     bool symmetric) {
  return make_affine_grid(min, max, make_grid_steps<Compute>(qmin, qmax),
                          symmetric);
}

template <QuantMode mode, typename Compute>
AIMETPP_FORMULA Compute transform(Compute x, const AffineGrid<Compute>& grid) {
  if constexpr (mode == QuantMode::dequantize) {
    return (x + grid.offset) * grid.scale;
  } else {
    const Compute q = clamp_keep_nan(std::rint(x / grid.scale) - grid.offset,
                                     grid.qmin, grid.qmax);
    if constexpr (mode == QuantMode::quantize) return q;
    return (q + grid.offset) * grid.scale;
  }
}

// Straight-through gradients: round counts as the identity, the clamp passes
// what was inside the grid before it. With t = x / scale, inside:
//
//   mode           d/dx      d/dscale         d/doffset   where
//   fake_quantize  1         round(t) - t     0           inside
//                  0         q + offset       scale       outside
//   quantize       1/scale   -t / scale       -1          inside (0 outside)
//   dequantize     scale     x + offset       scale       everywhere
//
// A NaN is not inside: its dL/dx is 0 (where the mode clamps) and, with
// fake_quantize, the sums are NaN.
template <QuantMode mode, typename Compute>
AIMETPP_FORMULA ElementGradient<Compute> gradient(
    Compute upstream, Compute x, const AffineGrid<Compute>& grid) {
  if constexpr (mode == QuantMode::dequantize) {
    return {upstream * grid.scale, upstream * (x + grid.offset), upstream};
  } else {
    const Compute ratio = x / grid.scale;
    const Compute rounded = std::rint(ratio);
    const Compute unclamped = rounded - grid.offset;
    // & and values computed ahead of the choice: nothing to branch over.
    const bool inside =
        (unclamped >= grid.qmin) & (unclamped <= grid.qmax);  // false for NaN
    if constexpr (mode == QuantMode::quantize) {
      const Compute dx = upstream / grid.scale;
      const Compute scale_term = -(upstream * ratio);
      return {zero_unless(inside, dx), zero_unless(inside, scale_term),
              zero_unless(inside, -upstream)};
    } else {
      const Compute clamped =
          clamp_keep_nan(unclamped, grid.qmin, grid.qmax) + grid.offset;
      const Compute slope = inside ? rounded - ratio : clamped;
      return {zero_unless(inside, upstream), upstream * slope,
              zero_unless(!inside, upstream)};
    }
  }
}

// The factors left out of the terms: makes dL/dscale and dL/doffset of the
// sums.
template <QuantMode mode>
AIMETPP_FORMULA void finish_sums(double scale, double& scale_sum,
                                 double& offset_sum) {
  if constexpr (mode == QuantMode::quantize) {
    scale_sum /= scale;
  } else {
    offset_sum *= scale;
  }
}

// From dL/dscale and dL/doffset to the ends of the range, by the chain rule
// through make_affine_grid: its round counts as the identity, its lower bound
// on |scale| passes the gradient, and an offset that was clamped is a constant,
// as the symmetric one always is.
template <typename Compute>
AIMETPP_FORMULA RangeGradient chain_to_range(double dscale, double doffset,
                                             Compute min,
                                             const AffineGrid<Compute>& grid,
                                             bool symmetric) {
  const double num_steps =
      static_cast<double>(grid.qmax) - static_cast<double>(grid.qmin);
  double direct = 0;  // dL/dmin through min / scale
  if (!symmetric) {
    const Compute offset = unclamped_offset(min, grid.scale, grid.qmin);
    if (offset >= -grid.qmax && offset <= -grid.qmin) {
      const double scale = static_cast<double>(grid.scale);
      direct = doffset / scale;
      dscale -= direct * (static_cast<double>(min) / scale);
    }
  }
  return {direct - dscale / num_steps, dscale / num_steps};
}

}  // namespace aimetpp
