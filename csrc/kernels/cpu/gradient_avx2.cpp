// SPDX-License-Identifier: BSD-3-Clause
#include "kernels/cpu/gradient_simd.h"

#if AIMETPP_HAS_AVX
#include <immintrin.h>

#include <algorithm>

#define AIMETPP_AVX2_INLINE \
  AIMETPP_TARGET_AVX2 __attribute__((always_inline)) inline

namespace aimetpp::kernels::cpu {
namespace {

constexpr std::int64_t kWidth = 8;
static_assert(kLanes == 2 * kWidth);

// A GradientGrid in registers.
struct GridVectors {
  AIMETPP_AVX2_INLINE explicit GridVectors(const GradientGrid& grid)
      : first(_mm256_set1_ps(grid.inside.first)),
        last(_mm256_set1_ps(grid.inside.last)),
        minus_lowest(_mm256_set1_ps(-(grid.affine.qmin + grid.affine.offset))),
        minus_highest(_mm256_set1_ps(-(grid.affine.qmax + grid.affine.offset))),
        scale(_mm256_set1_ps(grid.affine.scale)) {}

  __m256 first;
  __m256 last;
  __m256 minus_lowest;
  __m256 minus_highest;
  __m256 scale;
};

// Half of the lanes of a run.
struct RunSums {
  AIMETPP_AVX2_INLINE RunSums()
      : scale(_mm256_setzero_ps()), offset(_mm256_setzero_ps()) {}

  __m256 scale;
  __m256 offset;
  bool has_outside = false;
};

AIMETPP_AVX2_INLINE void add_to(double* sums, __m256 lanes) {
  const __m256d low = _mm256_cvtps_pd(_mm256_castps256_ps128(lanes));
  const __m256d high = _mm256_cvtps_pd(_mm256_extractf128_ps(lanes, 1));
  _mm256_storeu_pd(sums, _mm256_add_pd(_mm256_loadu_pd(sums), low));
  _mm256_storeu_pd(sums + 4, _mm256_add_pd(_mm256_loadu_pd(sums + 4), high));
}

// Returns what passes of the gradient. Divides: a register's quotients take as
// long as the rest of the loop, beside which they are computed.
AIMETPP_AVX2_INLINE __m256 add_elements(__m256 upstream, __m256 value,
                                        const GridVectors& grid,
                                        RunSums* sums) {
  const __m256 inside =
      _mm256_and_ps(_mm256_cmp_ps(value, grid.first, _CMP_GE_OQ),
                    _mm256_cmp_ps(value, grid.last, _CMP_LE_OQ));  // not NaN
  const __m256 ratio = _mm256_div_ps(value, grid.scale);
  __m256 minus_slope = _mm256_sub_ps(
      ratio,
      _mm256_round_ps(ratio, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  __m256 passed = upstream;
  if (_mm256_movemask_ps(inside) != 0xff) {
    const __m256 below = _mm256_cmp_ps(value, grid.first, _CMP_LT_OQ);
    const __m256 above = _mm256_cmp_ps(value, grid.last, _CMP_GT_OQ);
    minus_slope = _mm256_blendv_ps(minus_slope, grid.minus_lowest, below);
    minus_slope = _mm256_blendv_ps(minus_slope, grid.minus_highest, above);
    passed = _mm256_and_ps(inside, upstream);
    sums->offset =
        _mm256_add_ps(sums->offset, _mm256_andnot_ps(inside, upstream));
    sums->has_outside = true;
  }
  sums->scale =
      _mm256_sub_ps(sums->scale, _mm256_mul_ps(upstream, minus_slope));
  return passed;
}

// Lanes 0 to count - 1.
AIMETPP_AVX2_INLINE __m256i first_lanes(std::int64_t count) {
  const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)), lanes);
}

}  // namespace

AIMETPP_TARGET_AVX2 void gradient_span_avx2(const float* grad, const float* x,
                                            float* dx, std::int64_t n,
                                            const GradientGrid& grid,
                                            LaneSums* sums) {
  const GridVectors vectors(grid);
  for (std::int64_t i = 0; i < n;) {
    const std::int64_t end = std::min(n, i + static_cast<std::int64_t>(kRun));
    RunSums halves[2];
    for (; i + 2 * kWidth <= end; i += 2 * kWidth) {
      for (std::int64_t half = 0; half < 2; ++half) {
        const std::int64_t at = i + half * kWidth;
        _mm256_storeu_ps(dx + at, add_elements(_mm256_loadu_ps(grad + at),
                                               _mm256_loadu_ps(x + at), vectors,
                                               &halves[half]));
      }
    }
    for (std::int64_t half = 0; i < end; ++half) {
      // The lanes that are not there have a gradient of 0: so have their terms.
      const std::int64_t count = std::min(end - i, kWidth);
      const __m256i there = first_lanes(count);
      _mm256_maskstore_ps(dx + i, there,
                          add_elements(_mm256_maskload_ps(grad + i, there),
                                       _mm256_maskload_ps(x + i, there),
                                       vectors, &halves[half]));
      i += count;
    }
    for (std::int64_t half = 0; half < 2; ++half) {
      const RunSums& run = halves[half];
      add_to(sums->scale.data() + half * kWidth, run.scale);
      if (run.has_outside) {
        add_to(sums->offset.data() + half * kWidth, run.offset);
      }
    }
  }
}

}  // namespace aimetpp::kernels::cpu
#endif
