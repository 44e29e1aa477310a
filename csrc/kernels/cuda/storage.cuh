// SPDX-License-Identifier: BSD-3-Clause
// How tensors are stored on the device, and how threads reach their elements.
// Private to kernels/cuda.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

#include "kernels/dispatch.h"
#include "kernels/fake_quant.h"

namespace aimetpp::kernels::cuda {

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
  kernels::with_stored<__half, __nv_bfloat16>(storage, run);
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

}  // namespace aimetpp::kernels::cuda
