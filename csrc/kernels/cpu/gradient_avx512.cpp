// SPDX-License-Identifier: BSD-3-Clause
#include "kernels/cpu/gradient_avx512.h"

#if AIMETPP_HAS_AVX
#if defined(__GNUC__) && !defined(__clang__)
// GCC 12 takes the undefined operands of its own intrinsics for mistakes.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

namespace aimetpp::kernels::cpu {
namespace {

// Elements i to i + 15 go to the lanes i % 8 to i % 8 + 7, twice.
AIMETPP_TARGET_AVX512 inline __m512d added(__m512d lanes, __m512 terms) {
  lanes = _mm512_add_pd(lanes, _mm512_cvtps_pd(_mm512_castps512_ps256(terms)));
  return _mm512_add_pd(lanes,
                       _mm512_cvtps_pd(_mm512_extractf32x8_ps(terms, 1)));
}

}  // namespace

AIMETPP_TARGET_AVX512 void gradient_span_avx512(const float* grad,
                                                const float* x, float* dx,
                                                std::int64_t n,
                                                const GradientGrid& grid,
                                                LaneSums* sums) {
  static_assert(kLanes == 8);
  const ReciprocalGrid& parts = grid.reciprocal;
  const __m512 first = _mm512_set1_ps(grid.inside.first);
  const __m512 last = _mm512_set1_ps(grid.inside.last);
  const __m512 lowest = _mm512_set1_ps(grid.affine.qmin + grid.affine.offset);
  const __m512 highest = _mm512_set1_ps(grid.affine.qmax + grid.affine.offset);
  const __m512 scale = _mm512_set1_ps(parts.scale);
  const __m512 reciprocal = _mm512_set1_ps(parts.reciprocal);
  const __m512 rest = _mm512_set1_ps(parts.reciprocal_remainder);
  const __m512 magic = _mm512_set1_ps(kRoundingMagic);
  // Set in every float from 2^-95 up; below, quotients need the division.
  const __m512i exponent = _mm512_set1_epi32(0x70000000);
  const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
  __m512d scale_sums = _mm512_loadu_pd(sums->scale.data());
  __m512d offset_sums = _mm512_loadu_pd(sums->offset.data());
  std::int64_t i = 0;
  for (; i + 16 <= n; i += 16) {
    const __m512 value = _mm512_loadu_ps(x + i);
    const __m512 upstream = _mm512_loadu_ps(grad + i);
    // These keep the second operand where it is a NaN.
    const __m512 clamped = _mm512_min_ps(last, _mm512_max_ps(first, value));
    const __mmask16 inside = _mm512_cmp_ps_mask(clamped, value, _CMP_EQ_OQ);
    const __m512 near =
        _mm512_fmadd_ps(clamped, reciprocal, _mm512_mul_ps(clamped, rest));
    const __m512 remainder = _mm512_fnmadd_ps(scale, near, clamped);
    const __m512 ratio = _mm512_fmadd_ps(remainder, reciprocal, near);
    const __m512 rounded = _mm512_sub_ps(_mm512_add_ps(ratio, magic), magic);
    __m512 slope = _mm512_sub_ps(rounded, ratio);
    __m512 passed = upstream;
    const __mmask16 small =
        _mm512_testn_epi32_mask(_mm512_castps_si512(value), exponent);
    if (small != 0) {
      const __mmask16 tiny = _mm512_mask_test_epi32_mask(
          small, _mm512_castps_si512(value), magnitude);
      if (tiny != 0) {
        slope = _mm512_mask_sub_ps(slope, tiny, rounded,
                                   _mm512_div_ps(clamped, scale));
      }
    }
    if (inside != 0xffff) {
      const __mmask16 outside = _knot_mask16(inside);
      slope = _mm512_mask_mov_ps(
          slope, _mm512_cmp_ps_mask(value, first, _CMP_LT_OQ), lowest);
      slope = _mm512_mask_mov_ps(
          slope, _mm512_cmp_ps_mask(value, last, _CMP_GT_OQ), highest);
      passed = _mm512_maskz_mov_ps(inside, upstream);
      offset_sums = added(offset_sums, _mm512_maskz_mov_ps(outside, upstream));
    }
    _mm512_storeu_ps(dx + i, passed);
    scale_sums = added(scale_sums, _mm512_mul_ps(upstream, slope));
  }
  _mm512_storeu_pd(sums->scale.data(), scale_sums);
  _mm512_storeu_pd(sums->offset.data(), offset_sums);
  if (i < n) {
    gradient_span<QuantMode::fake_quantize>(grad + i, x + i, dx + i, n - i,
                                            grid.affine, sums);
  }
}

}  // namespace aimetpp::kernels::cpu
#endif
