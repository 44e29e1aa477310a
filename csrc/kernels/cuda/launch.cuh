// SPDX-License-Identifier: BSD-3-Clause
// How kernels are launched, and on how many threads. Private to kernels/cuda.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <utility>

namespace aimetpp::kernels::cuda {

constexpr int kThreads = 256;  // per block, everywhere

// Blocks for a grid-stride loop over `items`: enough to fill any device of
// today several times over.
inline std::int64_t grid_stride_blocks(std::int64_t items) {
  constexpr std::int64_t kMaxBlocks = 8192;
  return std::min(kMaxBlocks, (items + kThreads - 1) / kThreads);
}

// Blocks of kThreads threads, without shared memory that is sized at run time.
// An error is left in cudaGetLastError: also where blocks are more than a
// device takes, 2^31 - 1.
template <typename... Parameters, typename... Arguments>
void launch(void (*kernel)(Parameters...), std::int64_t blocks,
            cudaStream_t stream, Arguments&&... arguments) {
  cudaLaunchConfig_t config{};
  config.gridDim =
      dim3(static_cast<unsigned>(std::min<std::int64_t>(blocks, UINT32_MAX)));
  config.blockDim = dim3(kThreads);
  config.stream = stream;
  static_cast<void>(cudaLaunchKernelEx(&config, kernel,
                                       std::forward<Arguments>(arguments)...));
}

}  // namespace aimetpp::kernels::cuda
