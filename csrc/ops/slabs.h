// SPDX-License-Identifier: BSD-3-Clause
// A tensor in pieces that fit into a cache, each a stretch of the dense memory
// of a result: so that what has to be gathered from a tensor that is not dense,
// or is read several times, travels from memory once. Private to ops/.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "kernels/fake_quant.h"

namespace aimetpp::ops {

struct Slab {
  std::int64_t offset = 0;  // of its first element in the dense memory
  kernels::ChannelLayout layout;
  std::int64_t first_channel = 0;   // layout's channel 0
  std::vector<std::int64_t> first;  // its first index along each dimension
  std::vector<std::int64_t> sizes;
};

// All slabs of a tensor of these sizes and dense strides, in the order of
// memory. `axis`: that of the channels, from the front.
[[nodiscard]] std::vector<Slab> slabs_of(at::IntArrayRef sizes,
                                         at::IntArrayRef dense_strides,
                                         std::optional<std::int64_t> axis);

// The elements of a tensor of the same sizes that a slab is of.
[[nodiscard]] at::Tensor view_of(const at::Tensor& tensor, const Slab& slab);

// The call that a slab of the tensor is.
[[nodiscard]] kernels::QuantCall call_of(const kernels::QuantCall& whole,
                                         const Slab& slab);

// kernels::cpu::transform of x, which need not be dense, to y, which is. What a
// slab gathers of x is still in the cache when it is transformed, in its place
// in y.
void transform_gathered(const kernels::QuantCall& call, const at::Tensor& x,
                        const at::Tensor& y, std::optional<std::int64_t> axis);

// The same to x itself, by way of one slab's memory; `dense_strides`: those of
// a dense tensor like x. An error where elements of x share memory.
void transform_in_place(const kernels::QuantCall& call, const at::Tensor& x,
                        at::IntArrayRef dense_strides,
                        std::optional<std::int64_t> axis);

}  // namespace aimetpp::ops
