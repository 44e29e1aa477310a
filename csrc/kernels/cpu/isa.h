// SPDX-License-Identifier: BSD-3-Clause
// Compiles one always-inlined loop for several instruction sets, in one source
// file and with no compiler flags of its own:
//
//   auto run = for_isa<&loop<float>>(isa);   // a function pointer
//   run(x, y, n);
#pragma once

#include "kernels/fake_quant.h"

// Fused multiply-add is left out on purpose: it would change the bits.
#if defined(__x86_64__) && defined(__GNUC__)
#define AIMETPP_HAS_AVX2 1
#define AIMETPP_TARGET_AVX2 __attribute__((target("avx2")))
#else
#define AIMETPP_HAS_AVX2 0
#endif

namespace aimetpp::kernels::cpu {

template <auto loop>
struct Compiled;

template <typename... Args, void (*loop)(Args...)>
struct Compiled<loop> {
  static void portable(Args... args) { loop(args...); }
#if AIMETPP_HAS_AVX2
  AIMETPP_TARGET_AVX2 static void avx2(Args... args) { loop(args...); }
#endif
};

template <auto loop>
auto for_isa([[maybe_unused]] Isa isa) {
#if AIMETPP_HAS_AVX2
  if (isa == Isa::avx2) return &Compiled<loop>::avx2;
#endif
  return &Compiled<loop>::portable;
}

}  // namespace aimetpp::kernels::cpu
