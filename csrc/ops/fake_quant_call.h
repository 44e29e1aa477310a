// SPDX-License-Identifier: BSD-3-Clause
// Between the dispatcher and the kernels, for any device: argument checks and
// the translation from tensors to kernels::QuantCall. Private to ops/,
// python/ and tests.
#pragma once

#include <ATen/core/List.h>
#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <optional>

#include "core/macros.h"
#include "kernels/fake_quant.h"

namespace aimetpp::ops {

// The arguments of a forward op, borrowed.
struct QuantArguments {
  const at::Tensor& x;
  const at::Tensor& min;
  const at::Tensor& max;
  const at::Tensor& grid;
  bool symmetric;
  std::optional<std::int64_t> channel_axis;
};

// Those of fake_quantize_many.
struct ManyArguments {
  const at::Tensor& x;
  at::TensorList min;
  at::TensorList max;
  at::TensorList grid;
  const c10::List<bool>& symmetric;
  std::optional<std::int64_t> channel_axis;

  // Checks that the lists are of one length.
  [[nodiscard]] AIMETPP_API std::size_t count() const;
  [[nodiscard]] QuantArguments at(std::size_t i) const {
    return {x, min[i], max[i], grid[i], symmetric[i], channel_axis};
  }
};

[[nodiscard]] const char* op_name(QuantMode mode);

// nullopt for a dtype that the ops do not take.
[[nodiscard]] std::optional<kernels::Storage> storage_of(at::ScalarType dtype);

// channel_axis counted from the front. op, input: the names for an error.
[[nodiscard]] std::optional<std::int64_t> wrapped_axis(
    const char* op, const char* input, const at::Tensor& x,
    std::optional<std::int64_t> channel_axis);

// Of a dense tensor.
[[nodiscard]] AIMETPP_API kernels::ChannelLayout layout_of(
    const at::Tensor& dense, std::optional<std::int64_t> axis);

// Everything that can be checked without reading a tensor's data; also right
// for meta tensors and symbolic sizes.
void check_arguments(QuantMode mode, const QuantArguments& arguments);
AIMETPP_API void check_grad(QuantMode mode, const at::Tensor& grad,
                            const at::Tensor& x);
// That fake_quantize's result can be written to y; it may be x.
AIMETPP_API void check_written(const at::Tensor& y, const at::Tensor& x);

// A call with the tensors its pointers point into.
struct PreparedCall {
  at::Tensor min;
  at::Tensor max;
  at::Tensor grid;
  kernels::QuantCall call;
};

// Checks the arguments and lays the range out for a kernel that walks in the
// order of `dense`'s memory, a dense tensor of x's shape, or a meta tensor.
[[nodiscard]] AIMETPP_API PreparedCall prepare(QuantMode mode,
                                               const QuantArguments& arguments,
                                               const at::Tensor& dense);

// That qmin < qmax; on the CPU, where the grid can be read without waiting.
void check_grid_values(QuantMode mode, const at::Tensor& grid);

// An output for dL/dmin or dL/dmax.
[[nodiscard]] AIMETPP_API at::Tensor empty_range_grad(
    const at::Tensor& range_end);

// An output for an extreme of x.
[[nodiscard]] AIMETPP_API at::Tensor empty_extreme(const at::Tensor& x);

}  // namespace aimetpp::ops
