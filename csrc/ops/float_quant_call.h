// SPDX-License-Identifier: BSD-3-Clause
// Between the dispatcher and the kernels of float_quantize, for any device.
// Private to ops/ and tests.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>

#include "core/macros.h"
#include "kernels/float_quant.h"

namespace aimetpp::ops {

// The arguments of float_quantize, borrowed.
struct FloatArguments {
  const at::Tensor& x;
  std::int64_t exponent_bits;
  std::int64_t mantissa_bits;
  bool saturate;
  const std::optional<at::Tensor>& scale;
  std::optional<std::int64_t> channel_axis;
};

// What can be checked without reading data; also right for meta tensors.
AIMETPP_API void check_float_arguments(const FloatArguments& arguments);
AIMETPP_API void check_float_grad(const at::Tensor& grad, const at::Tensor& x);

// A call with the tensor its pointer points into.
struct PreparedFloatCall {
  at::Tensor scale;
  kernels::FloatCall call;
};

// Checks the arguments, for a kernel that walks in the order of `dense`'s
// memory, a dense tensor of x's shape.
[[nodiscard]] AIMETPP_API PreparedFloatCall
prepare_float(const FloatArguments& arguments, const at::Tensor& dense);

}  // namespace aimetpp::ops
