// SPDX-License-Identifier: BSD-3-Clause
#include "kernels/cpu/gradient_simd.h"

#if AIMETPP_HAS_AVX
#if defined(__GNUC__) && !defined(__clang__)
// GCC 12 takes the undefined operands of its own intrinsics for mistakes.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

#include <algorithm>

#define AIMETPP_AVX512_INLINE \
  AIMETPP_TARGET_AVX512 __attribute__((always_inline)) inline

namespace aimetpp::kernels::cpu {
namespace {

static_assert(kLanes == 16);

// A GradientGrid in registers.
struct GridVectors {
  AIMETPP_AVX512_INLINE explicit GridVectors(const GradientGrid& grid)
      : first(_mm512_set1_ps(grid.inside.first)),
        last(_mm512_set1_ps(grid.inside.last)),
        minus_lowest(_mm512_set1_ps(-(grid.affine.qmin + grid.affine.offset))),
        minus_highest(_mm512_set1_ps(-(grid.affine.qmax + grid.affine.offset))),
        scale(_mm512_set1_ps(grid.reciprocal.scale)),
        reciprocal(_mm512_set1_ps(grid.reciprocal.reciprocal)),
        rest(_mm512_set1_ps(grid.reciprocal.reciprocal_remainder)) {}

  __m512 first;
  __m512 last;
  __m512 minus_lowest;
  __m512 minus_highest;
  __m512 scale;
  __m512 reciprocal;
  __m512 rest;
};

// The lanes of a run.
struct RunSums {
  AIMETPP_AVX512_INLINE RunSums()
      : scale(_mm512_setzero_ps()), offset(_mm512_setzero_ps()) {}

  __m512 scale;
  __m512 offset;
  bool has_outside = false;
};

AIMETPP_AVX512_INLINE void add_to(double* sums, __m512 lanes) {
  const __m512d low = _mm512_cvtps_pd(_mm512_castps512_ps256(lanes));
  const __m512d high = _mm512_cvtps_pd(_mm512_extractf32x8_ps(lanes, 1));
  _mm512_storeu_pd(sums, _mm512_add_pd(_mm512_loadu_pd(sums), low));
  _mm512_storeu_pd(sums + 8, _mm512_add_pd(_mm512_loadu_pd(sums + 8), high));
}

// The quotient's fraction, x / scale - round(x / scale), of x on the grid.
template <bool one_part>
AIMETPP_AVX512_INLINE __m512 fraction(__m512 value, __mmask16 inside,
                                      const GridVectors& grid) {
  // Set in every float from 2^-95 up; below, quotients need the division.
  const __m512i exponent = _mm512_set1_epi32(0x70000000);
  const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
  const __m512i bits = _mm512_castps_si512(value);
  __m512 near = _mm512_mul_ps(value, one_part ? grid.reciprocal : grid.rest);
  if constexpr (!one_part) near = _mm512_fmadd_ps(value, grid.reciprocal, near);
  const __m512 remainder = _mm512_fnmadd_ps(grid.scale, near, value);
  __m512 ratio = _mm512_fmadd_ps(remainder, grid.reciprocal, near);
  const __mmask16 tiny = _mm512_mask_test_epi32_mask(
      _mm512_mask_testn_epi32_mask(inside, bits, exponent), bits, magnitude);
  if (tiny != 0) ratio = _mm512_mask_div_ps(ratio, tiny, value, grid.scale);
  return _mm512_reduce_ps(ratio, _MM_FROUND_TO_NEAREST_INT);
}

// Returns what passes of the gradient.
template <bool one_part>
AIMETPP_AVX512_INLINE __m512 add_elements(__m512 upstream, __m512 value,
                                          const GridVectors& grid,
                                          RunSums* sums) {
  const __mmask16 inside = _mm512_mask_cmp_ps_mask(
      _mm512_cmp_ps_mask(value, grid.first, _CMP_GE_OQ), value, grid.last,
      _CMP_LE_OQ);  // false for NaN
  __m512 minus_slope = fraction<one_part>(value, inside, grid);
  __m512 passed = upstream;
  if (inside != 0xffff) {
    const __mmask16 below = _mm512_cmp_ps_mask(value, grid.first, _CMP_LT_OQ);
    const __mmask16 above = _mm512_cmp_ps_mask(value, grid.last, _CMP_GT_OQ);
    minus_slope = _mm512_mask_mov_ps(minus_slope, below, grid.minus_lowest);
    minus_slope = _mm512_mask_mov_ps(minus_slope, above, grid.minus_highest);
    passed = _mm512_maskz_mov_ps(inside, upstream);
    sums->offset = _mm512_add_ps(
        sums->offset, _mm512_maskz_mov_ps(_knot_mask16(inside), upstream));
    sums->has_outside = true;
  }
  sums->scale =
      _mm512_sub_ps(sums->scale, _mm512_mul_ps(upstream, minus_slope));
  return passed;
}

template <bool one_part>
AIMETPP_AVX512_INLINE void run_span(const float* grad, const float* x,
                                    float* dx, std::int64_t n,
                                    const GradientGrid& grid, LaneSums* sums) {
  constexpr std::int64_t kWidth = 16;
  const GridVectors vectors(grid);
  for (std::int64_t i = 0; i < n;) {
    const std::int64_t end = std::min(n, i + static_cast<std::int64_t>(kRun));
    RunSums run;
    for (; i + kWidth <= end; i += kWidth) {
      _mm512_storeu_ps(dx + i, add_elements<one_part>(_mm512_loadu_ps(grad + i),
                                                      _mm512_loadu_ps(x + i),
                                                      vectors, &run));
    }
    if (i < end) {
      // The lanes that are not there have a gradient of 0: so have their terms.
      const auto there = static_cast<__mmask16>((1U << (end - i)) - 1);
      const __m512 passed = add_elements<one_part>(
          _mm512_maskz_loadu_ps(there, grad + i),
          _mm512_maskz_loadu_ps(there, x + i), vectors, &run);
      _mm512_mask_storeu_ps(dx + i, there, passed);
      i = end;
    }
    add_to(sums->scale.data(), run.scale);
    if (run.has_outside) add_to(sums->offset.data(), run.offset);
  }
}

}  // namespace

AIMETPP_TARGET_AVX512 void gradient_span_avx512(const float* grad,
                                                const float* x, float* dx,
                                                std::int64_t n,
                                                const GradientGrid& grid,
                                                LaneSums* sums) {
  if (grid.one_part) {
    run_span<true>(grad, x, dx, n, grid, sums);
  } else {
    run_span<false>(grad, x, dx, n, grid, sums);
  }
}

}  // namespace aimetpp::kernels::cpu
#endif
