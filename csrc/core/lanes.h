// SPDX-License-Identifier: BSD-3-Clause
// Loops that the compiler does not vectorize by itself. A loop is a struct with
// one static member template
//
//   template <typename Lanes> static void run(...)
//
// (AIMETPP_ALWAYS_INLINE) written with the compiler's vector types;
// lanes_for_isa<Loop>(isa) is the instance of the widest vectors of the
// instruction set. No loop may let its result depend on the width.
#pragma once

#include <cstdint>
#include <cstring>

#include "core/for_isa.h"
#include "core/macros.h"

namespace aimetpp {

// Doubles: as many as Floats, in two registers of HalfDoubles.
struct Lanes128 {
  static constexpr std::int64_t kWidth = 4;
  using Floats = float __attribute__((vector_size(16)));
  using Ints = std::int32_t __attribute__((vector_size(16)));
  using Doubles = double __attribute__((vector_size(32)));
  using HalfDoubles = double __attribute__((vector_size(16)));
};

struct Lanes256 {
  static constexpr std::int64_t kWidth = 8;
  using Floats = float __attribute__((vector_size(32)));
  using Ints = std::int32_t __attribute__((vector_size(32)));
  using Doubles = double __attribute__((vector_size(64)));
  using HalfDoubles = double __attribute__((vector_size(32)));
};

struct Lanes512 {
  static constexpr std::int64_t kWidth = 16;
  using Floats = float __attribute__((vector_size(64)));
  using Ints = std::int32_t __attribute__((vector_size(64)));
  using Doubles = double __attribute__((vector_size(128)));
  using HalfDoubles = double __attribute__((vector_size(64)));
};

template <typename Vector, typename Element>
AIMETPP_ALWAYS_INLINE void load(Vector& vector, const Element* from) {
  std::memcpy(&vector, from, sizeof(Vector));
}

template <typename Vector, typename Element>
AIMETPP_ALWAYS_INLINE void store(const Vector& vector, Element* to) {
  std::memcpy(to, &vector, sizeof(Vector));
}

// Asks for what a loop through `from` reads a page later: by itself a processor
// fetches ahead within a page only. What lies behind the end does no harm.
AIMETPP_ALWAYS_INLINE void fetch_page_ahead(const float* from) {
  constexpr std::int64_t kPage = 4096 / sizeof(float);
  __builtin_prefetch(from + kPage);
}

template <typename Loop>
auto lanes_for_isa(Isa isa) {
  return for_isa<&Loop::template run<Lanes128>, &Loop::template run<Lanes256>,
                 &Loop::template run<Lanes512>>(isa);
}

}  // namespace aimetpp
