// SPDX-License-Identifier: BSD-3-Clause
// gradient_span of fake_quantize for AVX2 and AVX-512, to the last bit, at a
// half and a third of its cost: what only elements outside the grid need is
// computed only in vectors that have some, and AVX-512's has no divisions.
// Private to kernels/cpu.
#pragma once

#include <cstdint>

#include "core/for_isa.h"
#include "core/inside_interval.h"
#include "core/reciprocal_grid.h"
#include "kernels/cpu/fake_quant_loops.h"

#if AIMETPP_HAS_AVX
namespace aimetpp::kernels::cpu {

// A grid for them.
struct GradientGrid {
  AffineGrid<float> affine;
  ReciprocalGrid reciprocal;
  InsideInterval<float> inside;
  bool one_part = false;  // see quotients_need_one_part
};

// False where gradient_span has to be used.
inline bool make_gradient_grid(const AffineGrid<float>& affine,
                               GradientGrid* result) {
  constexpr float kLargestScale = 1048576;  // 2^20: see quotient
  result->affine = affine;
  if (!(affine.scale <= kLargestScale &&
        make_reciprocal_grid(affine, &result->reciprocal) &&
        find_inside(affine, &result->inside))) {
    return false;
  }
  result->one_part = quotients_need_one_part(result->reciprocal);
  return true;
}

AIMETPP_TARGET_AVX2 void gradient_span_avx2(const float* grad, const float* x,
                                            float* dx, std::int64_t n,
                                            const GradientGrid& grid,
                                            LaneSums* sums);
AIMETPP_TARGET_AVX512 void gradient_span_avx512(const float* grad,
                                                const float* x, float* dx,
                                                std::int64_t n,
                                                const GradientGrid& grid,
                                                LaneSums* sums);

}  // namespace aimetpp::kernels::cpu
#endif
