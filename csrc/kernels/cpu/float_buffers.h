// SPDX-License-Identifier: BSD-3-Clause
// Stretches of 16-bit floats as float32 and back, with the processor's own
// conversions where it has them.
#pragma once

#include <cstdint>

#include "core/for_isa.h"
#include "kernels/cpu/fake_quant_loops.h"
#include "kernels/cpu/storage.h"

#if AIMETPP_HAS_AVX
#include <immintrin.h>
#endif

namespace aimetpp::kernels::cpu {

// Elements converted at a time: they stay in the first-level cache.
constexpr std::int64_t kBuffer = 1024;

template <typename Stored>
AIMETPP_ALWAYS_INLINE void to_floats(const Stored* from, float* to,
                                     std::int64_t n) {
  AIMETPP_INDEPENDENT
  for (std::int64_t i = 0; i < n; ++i) to[i] = to_float(from[i]);
}

template <typename Stored>
AIMETPP_ALWAYS_INLINE void from_floats(const float* from, Stored* to,
                                       std::int64_t n) {
  AIMETPP_INDEPENDENT
  for (std::int64_t i = 0; i < n; ++i) to[i] = store<Stored>(from[i]);
}

#if AIMETPP_HAS_AVX
AIMETPP_TARGET_AVX2 inline void halves_to_floats(const Half* from, float* to,
                                                 std::int64_t n) {
  std::int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    _mm256_storeu_ps(to + i, _mm256_cvtph_ps(_mm_loadu_si128(
                                 reinterpret_cast<const __m128i*>(from + i))));
  }
  for (; i < n; ++i) to[i] = to_float(from[i]);
}

AIMETPP_TARGET_AVX2 inline void floats_to_halves(const float* from, Half* to,
                                                 std::int64_t n) {
  std::int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    _mm_storeu_si128(
        reinterpret_cast<__m128i*>(to + i),
        _mm256_cvtps_ph(_mm256_loadu_ps(from + i), _MM_FROUND_TO_NEAREST_INT));
  }
  for (; i < n; ++i) to[i] = to_half(from[i]);
}
#endif

// Both ways for one instruction set.
template <typename Stored>
struct FloatConversion {
  void (*load)(const Stored* from, float* to, std::int64_t n);
  void (*store)(const float* from, Stored* to, std::int64_t n);
};

template <typename Stored>
FloatConversion<Stored> float_conversion(Isa isa) {
#if AIMETPP_HAS_AVX
  if constexpr (std::is_same_v<Stored, Half>) {
    if (isa != Isa::portable) return {&halves_to_floats, &floats_to_halves};
  }
#endif
  return {for_isa<&to_floats<Stored>>(isa), for_isa<&from_floats<Stored>>(isa)};
}

}  // namespace aimetpp::kernels::cpu
