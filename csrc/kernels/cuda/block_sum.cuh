// SPDX-License-Identifier: BSD-3-Clause
// Sums within a block of threads. Private to kernels/cuda.
#pragma once

#include "kernels/cuda/launch.cuh"

namespace aimetpp::kernels::cuda {

// The sum of value over the threads of a block of kThreads, in thread 0, added
// pairwise in an order that never changes. Every thread of the block must call.
__device__ inline double block_sum(double value) {
  __shared__ double lanes[kThreads];
  lanes[threadIdx.x] = value;
  __syncthreads();
  for (int half = kThreads / 2; half > 0; half /= 2) {
    if (static_cast<int>(threadIdx.x) < half) {
      lanes[threadIdx.x] += lanes[threadIdx.x + half];
    }
    __syncthreads();
  }
  const double sum = lanes[0];
  __syncthreads();  // lanes may be used again
  return sum;
}

}  // namespace aimetpp::kernels::cuda
