// SPDX-License-Identifier: BSD-3-Clause
// By the compilers' own way to jump: nobody checks that it stays on one stack.
// In a file of its own, so that no caller counts on registers that these
// functions seem to leave alone.
#include "cuda/emulation/jump.h"

// AddressSanitizer would clear its notes of the whole stack before every jump.
#define AIMETPP_JUMPS gnu::noinline, gnu::no_sanitize_address

namespace emulation {
namespace {

[[noreturn, AIMETPP_JUMPS]] void go_to(Place& place) {
  __builtin_longjmp(place.data(), 1);
}

}  // namespace

[[AIMETPP_JUMPS]] void jump(Place& from, Place& to) {
  if (__builtin_setjmp(from.data()) == 0) go_to(to);
}

[[AIMETPP_JUMPS]] void begin(Place& from, const ucontext_t& context) {
  if (__builtin_setjmp(from.data()) == 0) setcontext(&context);
}

}  // namespace emulation
