// SPDX-License-Identifier: BSD-3-Clause
// From one stack to another, without the kernel of the operating system, which
// swapcontext calls each time.
#pragma once

#include <ucontext.h>

#include <array>

namespace emulation {

// Where something stands, until it goes on.
using Place = std::array<void*, 5>;

// Keeps where the caller stands in `from`, and goes on at `to`; returns when
// somebody jumps to `from`.
void jump(Place& from, Place& to);

// The same to where a context begins.
void begin(Place& from, const ucontext_t& context);

}  // namespace emulation
