// SPDX-License-Identifier: BSD-3-Clause
#include "ops/slabs.h"

#include <ATen/MemoryOverlap.h>
#include <ATen/ops/as_strided.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <functional>
#include <numeric>

#include "ops/parallel.h"

namespace aimetpp::ops {
namespace {

// Elements; in float32 a quarter of a megabyte.
constexpr std::int64_t kSlab = 65536;

std::int64_t product(at::IntArrayRef sizes) {
  return std::accumulate(sizes.begin(), sizes.end(), std::int64_t{1},
                         std::multiplies<>());
}

// Where the channels of a slab lie; `order`: the dimensions from the outermost
// in memory.
void set_channels(Slab* slab, const std::vector<std::int64_t>& order,
                  std::optional<std::int64_t> axis) {
  slab->layout = {1, 1, product(slab->sizes)};
  if (!axis) return;
  const auto a = static_cast<std::size_t>(*axis);
  slab->first_channel = slab->first[a];
  slab->layout = {1, slab->sizes[a], 1};
  std::int64_t* beside = &slab->layout.outer;
  for (const std::int64_t dim : order) {
    if (dim == *axis) {
      beside = &slab->layout.inner;
    } else {
      *beside *= slab->sizes[static_cast<std::size_t>(dim)];
    }
  }
}

}  // namespace

std::vector<Slab> slabs_of(at::IntArrayRef sizes, at::IntArrayRef dense_strides,
                           std::optional<std::int64_t> axis,
                           std::int64_t threads) {
  const std::int64_t numel = product(sizes);
  if (numel == 0) return {};
  const std::int64_t largest = kSlab * threads;
  std::vector<std::int64_t> order(sizes.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) {
    return dense_strides[a] > dense_strides[b];
  });
  // From `split` on, in order, dimensions are whole in a slab; the one before
  // has `length` indices in it, those before that one.
  std::int64_t whole = 1;
  std::size_t split = order.size();
  while (split > 0 && whole * sizes[order[split - 1]] <= largest) {
    whole *= sizes[order[--split]];
  }
  const std::int64_t length = std::max<std::int64_t>(1, largest / whole);
  std::vector<Slab> slabs;
  std::vector<std::int64_t> first(sizes.size(), 0);
  for (std::int64_t offset = 0; offset < numel;) {
    Slab slab;
    slab.offset = offset;
    slab.first = first;
    slab.sizes = sizes.vec();
    for (std::size_t i = 0; i < split; ++i) {
      const auto dim = static_cast<std::size_t>(order[i]);
      const bool is_last = i + 1 == split;
      slab.sizes[dim] = is_last ? std::min(length, sizes[dim] - first[dim]) : 1;
    }
    set_channels(&slab, order, axis);
    offset += slab.layout.numel();
    // On to the next index, the innermost of the split dimensions first.
    for (std::size_t i = split; i-- > 0;) {
      const auto dim = static_cast<std::size_t>(order[i]);
      first[dim] += slab.sizes[dim];
      if (first[dim] < sizes[dim]) break;
      first[dim] = 0;
    }
    slabs.push_back(std::move(slab));
  }
  return slabs;
}

at::Tensor view_of(const at::Tensor& tensor, const Slab& slab) {
  std::int64_t offset = tensor.storage_offset();
  for (std::size_t dim = 0; dim < slab.first.size(); ++dim) {
    offset += slab.first[dim] * tensor.strides()[dim];
  }
  return at::as_strided(tensor, slab.sizes, tensor.strides(), offset);
}

kernels::QuantCall call_of(const kernels::QuantCall& whole, const Slab& slab) {
  const std::size_t end_size = whole.range_storage == kernels::Storage::float64
                                   ? sizeof(double)
                                   : sizeof(float);
  const auto skip = static_cast<std::size_t>(slab.first_channel) * end_size;
  kernels::QuantCall call = whole;
  call.layout = slab.layout;
  call.min = static_cast<const char*>(whole.min) + skip;
  call.max = static_cast<const char*>(whole.max) + skip;
  return call;
}

void transform_gathered(const kernels::QuantCall& call, const at::Tensor& x,
                        const at::Tensor& y, std::optional<std::int64_t> axis) {
  for (const Slab& slab : slabs_of(y.sizes(), y.strides(), axis)) {
    const at::Tensor part = view_of(y, slab);
    part.copy_(view_of(x, slab));
    kernels::cpu::transform(call_of(call, slab), part.const_data_ptr(),
                            part.mutable_data_ptr(), at_parallel_for);
  }
}

void mask_gathered(const at::Tensor& grad, const at::Tensor& x,
                   const at::Tensor& dx, at::IntArrayRef dense_strides,
                   std::optional<std::int64_t> axis, const MaskSlab& run) {
  at::assert_no_internal_overlap(dx);
  const std::vector<Slab> slabs = slabs_of(x.sizes(), dense_strides, axis);
  if (slabs.empty()) return;
  const bool in_dx = dx.strides() == dense_strides;
  const bool in_x = x.strides() == dense_strides;
  // The first slab is the largest.
  const auto buffer_unless = [&](bool in_place) {
    const std::int64_t size = in_place ? 0 : slabs.front().layout.numel();
    return at::empty({size}, x.options());
  };
  const at::Tensor parts = buffer_unless(in_dx);
  const at::Tensor xs = buffer_unless(in_x);
  for (const Slab& slab : slabs) {
    const at::Tensor target = view_of(dx, slab);
    const at::Tensor part =
        in_dx ? target : at::as_strided(parts, slab.sizes, dense_strides);
    if (!(in_dx && dx.is_same(grad))) part.copy_(view_of(grad, slab));
    const at::Tensor values =
        in_x ? view_of(x, slab)
             : at::as_strided(xs, slab.sizes, dense_strides)
                   .copy_(view_of(x, slab));
    run(slab, part, values);
    if (!in_dx) target.copy_(part);
  }
}

void transform_in_place(const kernels::QuantCall& call, const at::Tensor& x,
                        at::IntArrayRef dense_strides,
                        std::optional<std::int64_t> axis) {
  at::assert_no_internal_overlap(x);
  const std::vector<Slab> slabs = slabs_of(x.sizes(), dense_strides, axis);
  if (slabs.empty()) return;
  // The first slab is the largest.
  const at::Tensor buffer =
      at::empty({slabs.front().layout.numel()}, x.options());
  for (const Slab& slab : slabs) {
    const at::Tensor values = at::as_strided(buffer, slab.sizes, dense_strides);
    const at::Tensor part = view_of(x, slab);
    values.copy_(part);
    kernels::cpu::transform(call_of(call, slab), values.const_data_ptr(),
                            values.mutable_data_ptr(), at_parallel_for);
    part.copy_(values);
  }
}

}  // namespace aimetpp::ops
