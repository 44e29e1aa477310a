// SPDX-License-Identifier: BSD-3-Clause
#include "ops/strides.h"

#include <ATen/MemoryOverlap.h>
#include <ATen/ops/empty_like.h>

#include <algorithm>
#include <cstdint>
#include <vector>

namespace aimetpp::ops {
namespace {

kernels::Strides strides_of(const at::Tensor& tensor,
                            at::IntArrayRef dense_strides) {
  kernels::Strides result;
  if (tensor.numel() == 0) return result;
  std::vector<std::size_t> order;  // from the outermost
  for (std::size_t dim = 0; dim < dense_strides.size(); ++dim) {
    if (tensor.sizes()[dim] != 1) order.push_back(dim);
  }
  std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) {
    return dense_strides[a] > dense_strides[b];
  });
  for (const std::size_t dim : order) {
    const std::int64_t size = tensor.sizes()[dim];
    const std::int64_t stride = tensor.strides()[dim];
    const int last = result.dims - 1;
    if (last >= 0 && result.strides[last] == stride * size) {
      result.sizes[last] *= size;
      result.strides[last] = stride;
      continue;
    }
    TORCH_CHECK_VALUE(result.dims < kernels::Strides::kMaxDims,
                      "aimetpp: a tensor must have at most ",
                      kernels::Strides::kMaxDims,
                      " dimensions with gaps between them, got sizes ",
                      tensor.sizes(), " and strides ", tensor.strides());
    result.sizes[result.dims] = size;
    result.strides[result.dims] = stride;
    ++result.dims;
  }
  if (result.dims == 1 && result.strides[0] == 1) result.dims = 0;
  return result;
}

}  // namespace

at::Tensor dense_like(const at::Tensor& x) {
  if (x.is_non_overlapping_and_dense()) return x;
  return at::empty_like(x, at::TensorOptions(at::kMeta));
}

kernels::Source source_of(const at::Tensor& tensor,
                          at::IntArrayRef dense_strides) {
  return {tensor.const_data_ptr(), strides_of(tensor, dense_strides)};
}

kernels::Target target_of(const at::Tensor& tensor,
                          at::IntArrayRef dense_strides) {
  at::assert_no_internal_overlap(tensor);
  return {tensor.mutable_data_ptr(), strides_of(tensor, dense_strides)};
}

}  // namespace aimetpp::ops
