// SPDX-License-Identifier: BSD-3-Clause
// Tensors that do not lie as a kernel walks, on host and device.
#pragma once

#include <cstdint>

#include "core/macros.h"

namespace aimetpp::kernels {

// Where the elements of a tensor lie, counted in the order in which a kernel
// walks: that of the memory of a dense tensor of the same shape. Its dimensions
// from the outermost in that memory to the innermost; neighbours that both
// tensors have in one piece count as one dimension.
struct Strides {
  static constexpr int kMaxDims = 16;

  int dims = 0;  // 0: the elements lie in the order of the walk
  std::int64_t sizes[kMaxDims] = {};
  std::int64_t strides[kMaxDims] = {};  // in elements

  [[nodiscard]] AIMETPP_HOST_DEVICE bool in_order() const { return dims == 0; }

  // The place of the element that the walk counts as `index`.
  [[nodiscard]] AIMETPP_HOST_DEVICE std::int64_t offset_of(
      std::int64_t index) const {
    if (dims == 0) return index;
    std::int64_t offset = 0;
    int dim = dims - 1;
    // 64-bit division is slow on the device.
    for (; dim > 0 && index > INT32_MAX; --dim) {
      offset += index % sizes[dim] * strides[dim];
      index /= sizes[dim];
    }
    for (; dim > 0; --dim) {
      const auto rest = static_cast<std::uint32_t>(index);
      const auto size = static_cast<std::uint32_t>(sizes[dim]);
      offset += static_cast<std::int64_t>(rest % size) * strides[dim];
      index = rest / size;
    }
    return offset + index * strides[0];
  }
};

// What a kernel reads, and what it writes.
struct Source {
  // NOLINTNEXTLINE(google-explicit-constructor): in the order of the walk.
  Source(const void* in_order) : data(in_order) {}
  Source(const void* first, const Strides& where)
      : data(first), strides(where) {}

  const void* data;
  Strides strides;
};

struct Target {
  // NOLINTNEXTLINE(google-explicit-constructor): in the order of the walk.
  Target(void* in_order) : data(in_order) {}
  Target(void* first, const Strides& where) : data(first), strides(where) {}

  void* data;
  Strides strides;
};

}  // namespace aimetpp::kernels
