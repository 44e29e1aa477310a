// SPDX-License-Identifier: BSD-3-Clause
// Tensors as kernels take them that walk in the order of another's memory.
// Private to ops/, python/ and tests.
#pragma once

#include <ATen/core/Tensor.h>

#include "core/macros.h"
#include "kernels/strided.h"

namespace aimetpp::ops {

// x itself where its elements lie without gaps, else a meta tensor with the
// strides of the dense tensor that results like x have.
[[nodiscard]] AIMETPP_API at::Tensor dense_like(const at::Tensor& x);

// `tensor`, walked in the order of a dense tensor's memory: of the same sizes,
// with these strides. A value error for a tensor with more dimensions that are
// not in one piece than kernels take.
[[nodiscard]] AIMETPP_API kernels::Source source_of(
    const at::Tensor& tensor, at::IntArrayRef dense_strides);

// The same for a tensor that is written: an error, too, where elements of it
// share memory.
[[nodiscard]] AIMETPP_API kernels::Target target_of(
    const at::Tensor& tensor, at::IntArrayRef dense_strides);

}  // namespace aimetpp::ops
