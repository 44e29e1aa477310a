// SPDX-License-Identifier: BSD-3-Clause
// Stands in for CUDA's header of this name: see cuda_runtime.h.
#pragma once

#include <cmath>

#include "kernels/cpu/storage.h"

struct __half {
  unsigned short bits;
};

inline float __half2float(__half value) {
  return aimetpp::kernels::cpu::to_float(
      aimetpp::kernels::cpu::Half{value.bits});
}

// A device has one NaN.
inline __half __float2half_rn(float value) {
  if (std::isnan(value)) return {0x7fff};
  return {aimetpp::kernels::cpu::to_half(value).bits};
}
