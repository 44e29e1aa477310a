// SPDX-License-Identifier: BSD-3-Clause
// The formula of core/quant_math.h without divisions, for the CPU's loops in
// float: to the last bit what transform and gradient of fake_quantize give.
//
// With the reciprocal of the scale in two parts, high + low, the product with x
// is off the exact quotient by 2^-46 of it at most before it is rounded, and
// one step of Markstein's method makes it the correctly rounded quotient
// (Brisebarre, Muller and Raina, "Accelerating correctly rounded floating-point
// division when the divisor is known in advance", IEEE Transactions on
// Computers 53, 2004). For almost every scale the product alone rounds to the
// right integers; which are such is checked, tie by tie.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>

#include "core/macros.h"
#include "core/quant_math.h"

namespace aimetpp {

struct ReciprocalGrid {
  float scale;
  float low;  // the real numbers that qmin and qmax stand for
  float high;
  float reciprocal;            // 1 / scale, rounded
  float reciprocal_remainder;  // 1 / scale - reciprocal
};

// False where the functions below would not give the formula's bits: grids so
// wide that an end of the range does not round to itself, and scales with which
// a product could leave the normal numbers.
AIMETPP_ALWAYS_INLINE bool make_reciprocal_grid(const AffineGrid<float>& grid,
                                                ReciprocalGrid* result) {
  constexpr float kLargestInteger = 1048576;            // 2^20
  constexpr float kLargestScale = 1152921504606846976;  // 2^60
  constexpr float kSmallestScale = 1.0F / (1 << 30);    // below min_scale's
  const float lowest = grid.qmin + grid.offset;
  const float highest = grid.qmax + grid.offset;
  // Comparisons that a NaN fails.
  if (!(grid.scale >= kSmallestScale && grid.scale <= kLargestScale &&
        grid.qmin >= -kLargestInteger && grid.qmax <= kLargestInteger &&
        lowest >= -kLargestInteger && highest <= kLargestInteger)) {
    return false;
  }
  const float reciprocal = 1 / grid.scale;
  const float remainder = std::fma(-grid.scale, reciprocal, 1.0F) * reciprocal;
  *result = {grid.scale, lowest * grid.scale, highest * grid.scale, reciprocal,
             remainder};
  return true;
}

// 1.5 * 2^23: floats around it are integers.
constexpr float kRoundingMagic = 12582912;

// Half to even, of a value below 2^22 in magnitude; never a negative zero.
AIMETPP_ALWAYS_INLINE float round_small(float value) {
  return (value + kRoundingMagic) - kRoundingMagic;
}

// Approximates x / grid.scale.
AIMETPP_ALWAYS_INLINE float product(float x, const ReciprocalGrid& grid) {
  return std::fma(x, grid.reciprocal, x * grid.reciprocal_remainder);
}

// x / grid.scale, correctly rounded where |x| is 0 or so large (2^-95, with
// scales up to 2^20) that the remainder is exact.
AIMETPP_ALWAYS_INLINE float quotient(float x, const ReciprocalGrid& grid) {
  const float near = product(x, grid);
  const float remainder = std::fma(-grid.scale, near, x);
  return std::fma(remainder, grid.reciprocal, near);
}

// Whether quotient is correct without the second part of the reciprocal, as it
// is for most scales. With significands s and x in [1, 2) and r = RN(1 / s),
// |1 - s * r| <= 2^-25 (fma gives it exactly) keeps x * r within half a unit in
// the last place of x / s: that unit is 2^-24 where x < s, and else x / s < 2
// and it is 2^-23. Rounded, the product is within one unit, which is what
// Markstein's theorem asks of the quotient that the last step corrects.
AIMETPP_ALWAYS_INLINE bool quotients_need_one_part(const ReciprocalGrid& grid) {
  constexpr float kBound = 1.0F / (1 << 25);
  return std::abs(std::fma(-grid.scale, grid.reciprocal, 1.0F)) <= kBound;
}

// transform<QuantMode::fake_quantize>. Clamping x instead of q leaves all that
// follows within the grid, where adding and subtracting the offset is exact and
// so can be left out. Of a tiny x / scale only that it rounds to zero matters:
// whether its last bits are right does not.
// `by_product`: check_product holds for this scale and the grid's largest
// integer.
template <bool by_product>
AIMETPP_ALWAYS_INLINE float fake_quantize_by_reciprocal(
    float x, const ReciprocalGrid& grid) {
  const float inside = clamp_keep_nan(x, grid.low, grid.high);
  const float ratio =
      by_product ? product(inside, grid) : quotient(inside, grid);
  return round_small(ratio) * grid.scale;
}

// suffices: whether round(product(x)) is round(x / scale) for every x with
// |x / scale| <= largest; it may be false where they are. `largest` is at most
// 2^20, scale as in a ReciprocalGrid.
//
// The two can only differ where the rounded quotient is a tie h = k + 1/2 for
// one of them and h's neighbour for the other, so where x / scale is within
// 2^-46 of the middle m between those. With the significands M of m (25 bits,
// odd) and S of the scale, m * scale is M * S < 2^49 times a power of two, and
// x there is a multiple of 2^24 such units: no x is near where M * S is further
// than 2^49 * 2^-46 = 8 from all multiples of 2^24. M is h's significand plus
// or minus one, h = H / 2 with an odd H.
AIMETPP_ALWAYS_INLINE void check_product(float scale, std::int32_t largest,
                                         bool* suffices) {
  constexpr std::uint32_t kModulus = 1U << 24;
  constexpr std::uint32_t kNear = 8;
  const std::uint32_t s =
      (std::bit_cast<std::uint32_t>(scale) & 0x7fffffU) | 0x800000U;
  const auto end = static_cast<std::uint32_t>(2 * largest);
  std::uint32_t found = 0;
  for (std::uint32_t bits = 1; (1U << (bits - 1)) < end; ++bits) {
    const std::uint32_t step = s << (25 - bits);
    const std::uint32_t first = (1U << (bits - 1)) | 1U;
    const std::uint32_t last = std::min(1U << bits, end);
    const std::uint32_t count = (last - first + 1) / 2;
    for (std::uint32_t i = 0; i < count; ++i) {
      const std::uint32_t tie = (first + 2 * i) * step;
      const std::uint32_t above = (tie + s + kNear) % kModulus;
      const std::uint32_t below = (tie - s + kNear) % kModulus;
      found |= static_cast<std::uint32_t>(above <= 2 * kNear) |
               static_cast<std::uint32_t>(below <= 2 * kNear);
    }
  }
  *suffices = found == 0;
}

}  // namespace aimetpp
