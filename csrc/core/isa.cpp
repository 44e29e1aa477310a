// SPDX-License-Identifier: BSD-3-Clause
#include "core/isa.h"

#include "core/for_isa.h"

namespace aimetpp {

const std::vector<Isa>& supported_isas() {
  static const std::vector<Isa> supported = [] {
    std::vector<Isa> isas{Isa::portable};
#if AIMETPP_HAS_AVX
    // Every processor with AVX2 that is in use has the two others.
    const bool has_avx2 = __builtin_cpu_supports("avx2") != 0 &&
                          __builtin_cpu_supports("fma") != 0 &&
                          __builtin_cpu_supports("f16c") != 0;
    if (has_avx2) isas.push_back(Isa::avx2);
    if (has_avx2 && __builtin_cpu_supports("avx512f") != 0 &&
        __builtin_cpu_supports("avx512bw") != 0 &&
        __builtin_cpu_supports("avx512dq") != 0 &&
        __builtin_cpu_supports("avx512vl") != 0) {
      isas.push_back(Isa::avx512);
    }
#endif
    return isas;
  }();
  return supported;
}

Isa best_isa() { return supported_isas().back(); }

}  // namespace aimetpp
