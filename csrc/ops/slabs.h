// SPDX-License-Identifier: BSD-3-Clause
// A tensor in pieces that fit into a cache, each a stretch of the dense memory
// of a result: so that what has to be gathered from a tensor that is not dense,
// or is read several times, travels from memory once. Private to ops/ and
// python/.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "core/macros.h"
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
// `threads`: so many are to have something to do in one slab.
[[nodiscard]] AIMETPP_API std::vector<Slab> slabs_of(
    at::IntArrayRef sizes, at::IntArrayRef dense_strides,
    std::optional<std::int64_t> axis, std::int64_t threads = 1);

// The elements of a tensor of the same sizes that a slab is of.
[[nodiscard]] AIMETPP_API at::Tensor view_of(const at::Tensor& tensor,
                                             const Slab& slab);

// The call that a slab of the tensor is.
[[nodiscard]] kernels::QuantCall call_of(const kernels::QuantCall& whole,
                                         const Slab& slab);

// kernels::cpu::transform of x, which need not be dense, to y, which is. What a
// slab gathers of x is still in the cache when it is transformed, in its place
// in y.
void transform_gathered(const kernels::QuantCall& call, const at::Tensor& x,
                        const at::Tensor& y, std::optional<std::int64_t> axis);

// run(slab, part, values): `part`, the slab's elements of grad, becomes those
// of dx; `values` are x's. Both dense, and in their tensors where those lie so.
using MaskSlab = std::function<void(const Slab& slab, const at::Tensor& part,
                                    const at::Tensor& values)>;

// run over all slabs of a dense tensor like x, whose strides are
// `dense_strides`. dx may be grad; an error where elements of dx share memory.
void mask_gathered(const at::Tensor& grad, const at::Tensor& x,
                   const at::Tensor& dx, at::IntArrayRef dense_strides,
                   std::optional<std::int64_t> axis, const MaskSlab& run);

// kernels::cpu::transform to x itself, by way of one slab's memory;
// `dense_strides`: those of a dense tensor like x. An error where elements of x
// share memory.
void transform_in_place(const kernels::QuantCall& call, const at::Tensor& x,
                        at::IntArrayRef dense_strides,
                        std::optional<std::int64_t> axis);

}  // namespace aimetpp::ops
