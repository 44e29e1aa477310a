// SPDX-License-Identifier: BSD-3-Clause
// Stands in for CUDA's header of this name where a host compiler compiles CUDA
// sources: as much of the language and of the runtime as the kernels use. A
// kernel is an ordinary function; launching it runs it, on the host, for every
// thread of every block (emulation.h), and returns when all are done.
#pragma once

#include <utility>

#include "cuda/emulation/emulation.h"

#define __host__
#define __device__
#define __global__
#define __launch_bounds__(...)
#define __grid_constant__
// Blocks run one after another, so one copy is enough. As on a device it holds
// at first what an earlier block left there.
#define __shared__ static

struct uint3 {
  unsigned x, y, z;
};

struct dim3 {
  // NOLINTNEXTLINE(google-explicit-constructor): as CUDA's.
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1)
      : x(x_), y(y_), z(z_) {}
  unsigned x, y, z;
};

struct CUstream_st;
using cudaStream_t = CUstream_st*;

enum cudaError_t { cudaSuccess };

struct cudaLaunchConfig_t {
  dim3 gridDim;
  dim3 blockDim;
  cudaStream_t stream;
};

// Of the thread that is running.
inline uint3 threadIdx, blockIdx;
inline dim3 blockDim, gridDim;

constexpr int warpSize = emulation::kWarp;

template <typename... Parameters, typename... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config,
                               void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
  gridDim = config->gridDim;
  blockDim = config->blockDim;
  emulation::run_grid(
      gridDim.x, blockDim.x,
      [&](unsigned block, unsigned thread) {
        blockIdx.x = block;
        threadIdx.x = thread;
      },
      [&] { kernel(static_cast<Parameters>(arguments)...); });
  return cudaSuccess;
}

inline void __syncthreads() { emulation::wait_for_block(); }

// The value of the thread `delta` lanes on, or the own where there is none.
template <typename Value>
Value __shfl_down_sync(unsigned mask, Value value, unsigned delta) {
  const unsigned own = emulation::lane();
  return emulation::value_of_lane(
      mask, value, own + delta < emulation::kWarp ? own + delta : own);
}

// Threads take turns only where they wait, so that plain code is atomic.
inline int atomicMax(int* address, int value) {
  return emulation::replace(address, value > *address, value);
}
inline int atomicMin(int* address, int value) {
  return emulation::replace(address, value < *address, value);
}
inline unsigned atomicMax(unsigned* address, unsigned value) {
  return emulation::replace(address, value > *address, value);
}
inline unsigned atomicMin(unsigned* address, unsigned value) {
  return emulation::replace(address, value < *address, value);
}

inline int __float_as_int(float value) {
  return __builtin_bit_cast(int, value);
}
inline unsigned __float_as_uint(float value) {
  return __builtin_bit_cast(unsigned, value);
}

template <typename Value>
Value min(Value a, Value b) {
  return b < a ? b : a;
}
template <typename Value>
Value max(Value a, Value b) {
  return a < b ? b : a;
}
