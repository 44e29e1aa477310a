// SPDX-License-Identifier: BSD-3-Clause
// Compiles one always-inlined loop for several instruction sets, in one source
// file and with no compiler flags of its own:
//
//   auto run = for_isa<&loop<float>>(isa);   // a function pointer
//   run(x, y, n);
//
// A loop written with vectors (core/lanes.h) has an instance for each width. No
// loop may let its result depend on the instruction set.
#pragma once

#include "core/isa.h"

// No compiler fuses a multiplication and an addition by itself here
// (-ffp-contract=off): that would change the bits. std::fma is one instruction.
#if defined(__x86_64__) && defined(__GNUC__)
#define AIMETPP_HAS_AVX 1
#define AIMETPP_TARGET_AVX2 __attribute__((target("avx2,fma,f16c")))
#define AIMETPP_TARGET_AVX512 \
  __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,fma,f16c")))
#else
#define AIMETPP_HAS_AVX 0
#endif

namespace aimetpp {

template <auto loop>
struct Compiled;

template <typename... Args, void (*loop)(Args...)>
struct Compiled<loop> {
  static void portable(Args... args) { loop(args...); }
#if AIMETPP_HAS_AVX
  AIMETPP_TARGET_AVX2 static void avx2(Args... args) { loop(args...); }
  AIMETPP_TARGET_AVX512 static void avx512(Args... args) { loop(args...); }
#endif
};

template <auto loop, auto avx2_loop = loop, auto avx512_loop = avx2_loop>
auto for_isa([[maybe_unused]] Isa isa) {
#if AIMETPP_HAS_AVX
  if (isa == Isa::avx512) return &Compiled<avx512_loop>::avx512;
  if (isa == Isa::avx2) return &Compiled<avx2_loop>::avx2;
#endif
  return &Compiled<loop>::portable;
}

}  // namespace aimetpp
