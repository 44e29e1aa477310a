// SPDX-License-Identifier: BSD-3-Clause
// The CUDA kernels of float_quantize; compiled only where torch itself was
// built for CUDA.
#include <ATen/ops/empty_like.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include "ops/fake_quant_call.h"
#include "ops/float_quant_call.h"
#include "ops/strides.h"

namespace aimetpp::ops {
namespace {

using OptionalTensor = std::optional<at::Tensor>;

at::Tensor forward_cuda(const at::Tensor& x, std::int64_t exponent_bits,
                        std::int64_t mantissa_bits, bool saturate,
                        const OptionalTensor& scale,
                        std::optional<std::int64_t> channel_axis) {
  check_float_arguments(
      {x, exponent_bits, mantissa_bits, saturate, scale, channel_axis});
  const c10::cuda::CUDAGuard guard(x.device());
  const at::Tensor y = at::empty_like(x);
  const PreparedFloatCall prepared = prepare_float(
      {x, exponent_bits, mantissa_bits, saturate, scale, channel_axis}, y);
  kernels::cuda::float_quantize(prepared.call, source_of(x, y.strides()),
                                y.mutable_data_ptr(),
                                c10::cuda::getCurrentCUDAStream().stream());
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  return y;
}

at::Tensor backward_cuda(const at::Tensor& grad, const at::Tensor& x,
                         std::int64_t exponent_bits, std::int64_t mantissa_bits,
                         bool saturate, const OptionalTensor& scale,
                         std::optional<std::int64_t> channel_axis) {
  check_float_arguments(
      {x, exponent_bits, mantissa_bits, saturate, scale, channel_axis});
  check_float_grad(grad, x);
  const c10::cuda::CUDAGuard guard(x.device());
  const at::Tensor dx = at::empty_like(x);
  const PreparedFloatCall prepared = prepare_float(
      {x, exponent_bits, mantissa_bits, saturate, scale, channel_axis}, dx);
  kernels::cuda::float_gradient(
      prepared.call, source_of(grad, dx.strides()), source_of(x, dx.strides()),
      dx.mutable_data_ptr(), c10::cuda::getCurrentCUDAStream().stream());
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  return dx;
}

TORCH_LIBRARY_IMPL(aimetpp, CUDA, m) {
  m.impl("float_quantize", &forward_cuda);
  m.impl("float_quantize_backward", &backward_cuda);
}

}  // namespace
}  // namespace aimetpp::ops
