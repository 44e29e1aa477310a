// SPDX-License-Identifier: BSD-3-Clause
// The smallest and the largest of some values, for calibration and for the
// kernels that observe what they quantize. What a NaN is, an error or nothing,
// is the caller's matter.
#pragma once

#include <bit>
#include <cstdint>
#include <limits>

#include "core/isa.h"
#include "core/macros.h"

namespace aimetpp {

// min > max: no finite value was seen.
struct Extremes {
  float min = std::numeric_limits<float>::infinity();
  float max = -std::numeric_limits<float>::infinity();

  [[nodiscard]] bool empty() const { return min > max; }
  void include(const Extremes& other) {
    if (other.min < min) min = other.min;
    if (other.max > max) max = other.max;
  }
};

inline constexpr std::int32_t kWithoutSign = 0x7FFFFFFF;
// The bits of an infinity; a NaN's, its sign left out, are larger.
inline constexpr std::int32_t kInfinityBits = 0x7F800000;

// What one look at values that may be anything shows: infinities and NaN show
// in `bits`, the largest pattern seen without its sign.
struct Scan {
  Extremes extremes;
  std::int32_t bits = 0;

  static Scan of(float value) {
    return {{value, value}, std::bit_cast<std::int32_t>(value) & kWithoutSign};
  }
  void include(const Scan& other) {
    extremes.include(other.extremes);
    if (other.bits > bits) bits = other.bits;
  }
  [[nodiscard]] bool all_finite() const { return bits < kInfinityBits; }
  [[nodiscard]] bool has_nan() const { return bits > kInfinityBits; }
};

// A NaN does not count in the extremes, infinities do.
AIMETPP_API Scan scan_values(const float* data, std::int64_t count,
                             Isa isa = best_isa());

// Of the finite values alone: infinities and NaN are left out. -0 counts as +0,
// since which of the two comes first must not show.
AIMETPP_API Extremes finite_extremes(const float* data, std::int64_t count,
                                     Isa isa = best_isa());

}  // namespace aimetpp
