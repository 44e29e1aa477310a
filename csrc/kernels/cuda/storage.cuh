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

// So many neighbours travel as one memory access, of 16 bytes.
template <typename Stored>
constexpr int kPackWidth = static_cast<int>(16 / sizeof(Stored));

template <typename Stored>
struct alignas(16) Pack {
  Stored values[kPackWidth<Stored>];
};

// The elements of a Source or a Target in the order of a kernel's walk, however
// they lie.
template <typename Stored>
struct Elements {
  Stored* data;
  bool in_packs;  // in order, and packs begin where accesses may
  Strides strides;

  __device__ Stored& operator[](std::int64_t index) const {
    return data[strides.offset_of(index)];
  }

  // Whether `count` elements from `first` on are one access.
  __device__ bool is_pack(std::int64_t first, int count) const {
    return in_packs && count == kPackWidth<Stored> &&
           first % kPackWidth<Stored> == 0;
  }
};

inline bool begins_a_pack(const void* data) {
  return reinterpret_cast<std::uintptr_t>(data) % 16 == 0;
}

template <typename Stored>
Elements<Stored> elements_of(Stored* data, const Strides& strides) {
  return {data, strides.in_order() && begins_a_pack(data), strides};
}
template <typename Stored>
Elements<const Stored> elements_of(const Source& source) {
  return elements_of(static_cast<const Stored*>(source.data), source.strides);
}
template <typename Stored>
Elements<Stored> elements_of(const Target& target) {
  return elements_of(static_cast<Stored*>(target.data), target.strides);
}

// `count` elements from `first` on, at most a pack.
template <typename Stored>
__device__ Pack<Stored> read_pack(const Elements<const Stored>& from,
                                  std::int64_t first, int count) {
  if (from.is_pack(first, count)) {
    return *reinterpret_cast<const Pack<Stored>*>(from.data + first);
  }
  Pack<Stored> pack{};
  for (int k = 0; k < kPackWidth<Stored>; ++k) {
    if (k < count) pack.values[k] = from[first + k];
  }
  return pack;
}

template <typename Stored>
__device__ void write_pack(const Elements<Stored>& to, std::int64_t first,
                           int count, const Pack<Stored>& pack) {
  if (to.is_pack(first, count)) {
    *reinterpret_cast<Pack<Stored>*>(to.data + first) = pack;
    return;
  }
  for (int k = 0; k < kPackWidth<Stored>; ++k) {
    if (k < count) to[first + k] = pack.values[k];
  }
}

// The same to elements in order, without strides to keep in memory.
template <typename Stored>
__device__ void write_pack(Stored* to, bool in_packs, std::int64_t first,
                           int count, const Pack<Stored>& pack) {
  if (in_packs && count == kPackWidth<Stored>) {
    *reinterpret_cast<Pack<Stored>*>(to + first) = pack;
    return;
  }
  for (int k = 0; k < kPackWidth<Stored>; ++k) {
    if (k < count) to[first + k] = pack.values[k];
  }
}

}  // namespace aimetpp::kernels::cuda
