// SPDX-License-Identifier: BSD-3-Clause
// Runs the threads of CUDA blocks on one host thread, as fibers that give way
// where they wait for each other: so that what CUDA kernels compute can be
// tested without a GPU. Nothing here tells how fast they are there, or whether
// the device's compiler and arithmetic do as they should.
//
// Blocks run one after another, in an order that is chosen, and so do the
// threads of a block between two places where they wait. A kernel whose result
// depends on that order is wrong; with orders that differ it is found out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <stdexcept>

namespace emulation {

constexpr unsigned kWarp = 32;

enum class Order : std::uint8_t { ascending, descending, shuffled };

// In which blocks, and the threads of one, take their turns from now on.
void set_order(Order order);

// Runs `thread` for every thread of every block, after enter(block, thread),
// which is called again whenever the thread goes on after others ran. Throws
// std::logic_error where threads wait for others that never come.
void run_grid(unsigned blocks, unsigned threads,
              const std::function<void(unsigned, unsigned)>& enter,
              const std::function<void()>& thread);

// Called by threads: returns when all threads of the block have called it.
void wait_for_block();

// The running thread's place in its warp.
unsigned lane();

// Replaces `bytes` <= 8 of a value by those that `lane` of the warp passed.
void exchange(void* value, std::size_t bytes, unsigned lane);

// What `source` of the warp passed as `value`, for a whole warp that calls
// together. A mask that leaves lanes out is not emulated.
template <typename Value>
Value value_of_lane(unsigned mask, Value value, unsigned source) {
  static_assert(sizeof(Value) <= 8);
  if (mask != 0xffffffffU) throw std::logic_error("a warp's mask is not full");
  exchange(&value, sizeof(Value), source);
  return value;
}

// What an atomic operation returns, the value before.
template <typename Value>
Value replace(Value* address, bool wanted, Value value) {
  const Value before = *address;
  if (wanted) *address = value;
  return before;
}

}  // namespace emulation
