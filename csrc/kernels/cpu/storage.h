// SPDX-License-Identifier: BSD-3-Clause
// IEEE half and bfloat16 as they lie in memory, and how they become float and
// back. Written without branches, so that loops over them vectorize.
#pragma once

#include <bit>
#include <cstdint>
#include <type_traits>

#include "core/macros.h"
#include "core/quant_math.h"

namespace aimetpp::kernels::cpu {

struct Half {
  std::uint16_t bits;
};

struct BFloat16 {
  std::uint16_t bits;
};

AIMETPP_ALWAYS_INLINE float to_float(Half half) {
  constexpr std::uint32_t kExponent = 0x7c00U << 13;
  constexpr std::uint32_t kRebias = (127U - 15U) << 23;
  // 2^-14, the smallest normal half: what the subnormals are counted from.
  constexpr std::uint32_t kSmallestNormal = 113U << 23;
  const std::uint32_t magnitude = (half.bits & 0x7fffU) << 13;
  const std::uint32_t exponent = magnitude & kExponent;
  const std::uint32_t subnormal = std::bit_cast<std::uint32_t>(
      std::bit_cast<float>(magnitude + kSmallestNormal) -
      std::bit_cast<float>(kSmallestNormal));
  const std::uint32_t finite = exponent == 0 ? subnormal : magnitude + kRebias;
  // A NaN comes out quiet, as from the processor's conversion.
  const std::uint32_t quiet = magnitude > kExponent ? 1U << 22 : 0U;
  const std::uint32_t value =
      exponent == kExponent ? (magnitude + 2 * kRebias) | quiet : finite;
  const std::uint32_t sign = (half.bits & 0x8000U) << 16;
  return std::bit_cast<float>(value | sign);
}

AIMETPP_ALWAYS_INLINE float to_float(BFloat16 value) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(value.bits) << 16);
}

// Rounds half to even; from 65520 on the result is infinite.
AIMETPP_ALWAYS_INLINE Half to_half(float value) {
  constexpr std::uint32_t kInfinity = 255U << 23;
  constexpr std::uint32_t kOverflow = (127U + 16U) << 23;  // 2^16
  constexpr std::uint32_t kSmallestNormal = 113U << 23;    // 2^-14
  constexpr std::uint32_t kRebias = (127U - 15U) << 23;
  // 0.5: its last bit is worth 2^-24, the step of the subnormal halves, so the
  // addition itself rounds to them.
  constexpr std::uint32_t kSubnormalUnit = 126U << 23;
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t magnitude = bits & 0x7fffffffU;
  const std::uint32_t subnormal =
      std::bit_cast<std::uint32_t>(std::bit_cast<float>(magnitude) +
                                   std::bit_cast<float>(kSubnormalUnit)) -
      kSubnormalUnit;
  const std::uint32_t odd = (magnitude >> 13) & 1U;
  const std::uint32_t normal = (magnitude - kRebias + 0xfffU + odd) >> 13;
  // A NaN keeps the upper bits of its payload, as in the processor's
  // conversion.
  const std::uint32_t nan = 0x7e00U | ((magnitude >> 13) & 0x3ffU);
  const std::uint32_t special = magnitude > kInfinity ? nan : 0x7c00U;
  const std::uint32_t finite = magnitude < kSmallestNormal ? subnormal : normal;
  const std::uint32_t result = magnitude >= kOverflow ? special : finite;
  const std::uint32_t sign = (bits >> 16) & 0x8000U;
  return {static_cast<std::uint16_t>(result | sign)};
}

// Rounds half to even.
AIMETPP_ALWAYS_INLINE BFloat16 to_bfloat16(float value) {
  constexpr std::uint32_t kInfinity = 255U << 23;
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t odd = (bits >> 16) & 1U;
  const std::uint32_t rounded = (bits + 0x7fffU + odd) >> 16;
  const bool is_nan = (bits & 0x7fffffffU) > kInfinity;
  return {static_cast<std::uint16_t>(is_nan ? 0x7fc0U : rounded)};
}

template <typename Compute, typename Stored>
AIMETPP_ALWAYS_INLINE Compute load(Stored value) {
  if constexpr (std::is_floating_point_v<Stored>) {
    return static_cast<Compute>(value);
  } else {
    return static_cast<Compute>(to_float(value));
  }
}

template <typename Stored, typename Compute>
AIMETPP_ALWAYS_INLINE Stored store(Compute value) {
  if constexpr (std::is_same_v<Stored, Half>) {
    return to_half(static_cast<float>(value));
  } else if constexpr (std::is_same_v<Stored, BFloat16>) {
    return to_bfloat16(static_cast<float>(value));
  } else {
    return static_cast<Stored>(value);
  }
}

// keep ? value : 0, without a branch.
template <typename Stored>
AIMETPP_ALWAYS_INLINE Stored zero_stored_unless(bool keep, Stored value) {
  if constexpr (std::is_floating_point_v<Stored>) {
    return zero_unless(keep, value);
  } else {
    return {static_cast<std::uint16_t>(value.bits & -std::uint16_t{keep})};
  }
}

}  // namespace aimetpp::kernels::cpu
