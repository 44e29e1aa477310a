// SPDX-License-Identifier: BSD-3-Clause
// Vector loops for the calibration statistics. A loop is a struct with one
// static member template
//
//   template <typename Lanes> static void run(...)
//
// (AIMETPP_ALWAYS_INLINE) written with the compiler's vector types; run_loop
// calls it with the widest vectors of the processor at hand. No loop may let
// its result depend on the width: then every processor gives the same bits.
#pragma once

#include <cstdint>
#include <cstring>

#include "core/macros.h"

namespace aimetpp::quantizer {

struct Lanes128 {
  static constexpr std::int64_t kWidth = 4;
  using Floats = float __attribute__((vector_size(16)));
  using Ints = std::int32_t __attribute__((vector_size(16)));
};

struct Lanes256 {
  static constexpr std::int64_t kWidth = 8;
  using Floats = float __attribute__((vector_size(32)));
  using Ints = std::int32_t __attribute__((vector_size(32)));
};

template <typename Vector, typename Element>
AIMETPP_ALWAYS_INLINE void load(Vector& vector, const Element* from) {
  std::memcpy(&vector, from, sizeof(Vector));
}

template <typename Vector, typename Element>
AIMETPP_ALWAYS_INLINE void store(const Vector& vector, Element* to) {
  std::memcpy(to, &vector, sizeof(Vector));
}

#if defined(__x86_64__)
template <typename Loop, typename... Args>
__attribute__((target("avx2"))) void run_loop_avx2(Args... args) {
  Loop::template run<Lanes256>(args...);
}
#endif

template <typename Loop, typename... Args>
void run_loop(Args... args) {
#if defined(__x86_64__)
  static const bool has_avx2 = __builtin_cpu_supports("avx2") != 0;
  if (has_avx2) return run_loop_avx2<Loop>(args...);
#endif
  Loop::template run<Lanes128>(args...);
}

}  // namespace aimetpp::quantizer
