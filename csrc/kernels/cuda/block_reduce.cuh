// SPDX-License-Identifier: BSD-3-Clause
// What all threads of a block have, made one: in an order that never changes.
// Private to kernels/cuda.
#pragma once

#include <type_traits>

#include "kernels/cuda/launch.cuh"

namespace aimetpp::kernels::cuda {

constexpr int kWarp = 32;
constexpr int kWarps = kThreads / kWarp;  // of a block

// combine(value, other) over the values of all threads of a block of kThreads,
// in thread 0. Every thread of the block must call, and once in a kernel.
// shift(value, lanes): the value of the thread so many lanes on.
template <typename Value, typename Shift, typename Combine>
__device__ Value block_reduce(Value value, const Shift& shift,
                              const Combine& combine) {
  static_assert(std::is_trivially_default_constructible_v<Value>);
  __shared__ Value warps[kWarps];
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const bool leads = threadIdx.x % kWarp == 0;
  for (unsigned lanes = kWarp / 2; lanes > 0; lanes /= 2) {
    value = combine(value, shift(value, lanes));
  }
  if (leads) warps[warp] = value;
  __syncthreads();
  if (threadIdx.x == 0) {
    for (int w = 1; w < kWarps; ++w) value = combine(value, warps[w]);
  }
  return value;
}

// The value of the thread `lanes` further on in the warp.
template <typename Value>
__device__ Value shifted(Value value, unsigned lanes) {
  return __shfl_down_sync(0xffffffffU, value, lanes);
}

}  // namespace aimetpp::kernels::cuda
