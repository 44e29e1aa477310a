// SPDX-License-Identifier: BSD-3-Clause
// Stands in for CUDA's header of this name: see cuda_runtime.h.
#pragma once

#include <cmath>

#include "kernels/cpu/storage.h"

struct __nv_bfloat16 {
  unsigned short bits;
};

inline float __bfloat162float(__nv_bfloat16 value) {
  return aimetpp::kernels::cpu::to_float(
      aimetpp::kernels::cpu::BFloat16{value.bits});
}

// A device has one NaN.
inline __nv_bfloat16 __float2bfloat16_rn(float value) {
  if (std::isnan(value)) return {0x7fff};
  return {aimetpp::kernels::cpu::to_bfloat16(value).bits};
}
