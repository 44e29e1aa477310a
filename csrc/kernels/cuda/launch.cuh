// SPDX-License-Identifier: BSD-3-Clause
// What CUDA kernels here share: how tensors are stored on the device, launch
// sizes, and sums within a block.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "kernels/fake_quant.h"

namespace aimetpp::kernels::cuda {

constexpr int kThreads = 256;  // per block, everywhere

// Blocks for a grid-stride loop over `items`: enough to fill any device of
// today several times over.
inline unsigned grid_stride_blocks(std::int64_t items) {
  constexpr std::int64_t kMaxBlocks = 8192;
  return static_cast<unsigned>(
      std::min(kMaxBlocks, (items + kThreads - 1) / kThreads));
}

// Blocks that share `tasks` between them, one each if the device allows it.
inline unsigned blocks_for(std::int64_t tasks) {
  return static_cast<unsigned>(std::min<std::int64_t>(tasks, INT32_MAX));
}

template <typename Compute>
__device__ inline Compute load(float value) {
  return static_cast<Compute>(value);
}
template <typename Compute>
__device__ inline Compute load(double value) {
  return static_cast<Compute>(value);
}
template <typename Compute>
__device__ inline Compute load(__half value) {
  return static_cast<Compute>(__half2float(value));
}
template <typename Compute>
__device__ inline Compute load(__nv_bfloat16 value) {
  return static_cast<Compute>(__bfloat162float(value));
}

// Through float, as on the CPU, also where Compute is double.
template <typename Stored, typename Compute>
__device__ inline Stored store(Compute value) {
  if constexpr (std::is_same_v<Stored, __half>) {
    return __float2half_rn(static_cast<float>(value));
  } else if constexpr (std::is_same_v<Stored, __nv_bfloat16>) {
    return __float2bfloat16_rn(static_cast<float>(value));
  } else {
    return static_cast<Stored>(value);
  }
}

// Calls run(Stored{}) for elements that are stored so.
template <typename Run>
void with_stored(Storage storage, const Run& run) {
  switch (storage) {
    case Storage::float32:
      return run(float{});
    case Storage::float64:
      return run(double{});
    case Storage::float16:
      return run(__half{});
    case Storage::bfloat16:
      return run(__nv_bfloat16{});
  }
}

// The elements of a Source or a Target in the order of a kernel's walk, however
// they lie.
template <typename Stored>
struct Elements {
  Stored* data;
  Strides strides;

  __device__ Stored& operator[](std::int64_t index) const {
    return data[strides.offset_of(index)];
  }
};

template <typename Stored>
Elements<const Stored> elements_of(const Source& source) {
  return {static_cast<const Stored*>(source.data), source.strides};
}

template <typename Stored>
Elements<Stored> elements_of(const Target& target) {
  return {static_cast<Stored*>(target.data), target.strides};
}

// `width` neighbours that travel as one memory access.
template <typename Stored, int width>
struct alignas(sizeof(Stored) * width) Pack {
  Stored values[width];
};

// Elements in a 16-byte access.
template <typename Stored>
constexpr int kPackWidth = static_cast<int>(16 / sizeof(Stored));

// Whether a whole tensor can be accessed in packs.
template <typename SourceOrTarget>
bool is_in_packs(const SourceOrTarget& tensor) {
  return tensor.strides.in_order() &&
         reinterpret_cast<std::uintptr_t>(tensor.data) % 16 == 0;
}

// Channel of the element at `index` in memory; in 32 bits where that is enough,
// because 64-bit division is slow on the device.
__device__ inline std::int64_t channel_of(const ChannelLayout& layout,
                                          std::int64_t index) {
  if (layout.numel() <= INT32_MAX) {
    return static_cast<std::uint32_t>(index) /
           static_cast<std::uint32_t>(layout.inner) %
           static_cast<std::uint32_t>(layout.channels);
  }
  return index / layout.inner % layout.channels;
}

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
