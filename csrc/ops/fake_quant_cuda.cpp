// SPDX-License-Identifier: BSD-3-Clause
// The CUDA kernels of the ops in fake_quant.cpp; compiled only where torch
// itself was built for CUDA.
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include "ops/fake_quant_call.h"
#include "ops/strides.h"

namespace aimetpp::ops {
namespace {

using OptionalAxis = std::optional<std::int64_t>;

CUstream_st* current_stream() {
  return c10::cuda::getCurrentCUDAStream().stream();
}

template <QuantMode mode>
at::Tensor forward_cuda(const at::Tensor& x, const at::Tensor& min,
                        const at::Tensor& max, const at::Tensor& grid,
                        bool symmetric, OptionalAxis channel_axis) {
  // The checks come first: x may be on the CPU beside a range on the device.
  const QuantArguments arguments{x, min, max, grid, symmetric, channel_axis};
  check_arguments(mode, arguments);
  const c10::cuda::CUDAGuard guard(x.device());
  const at::Tensor y = at::empty_like(x);
  const PreparedCall prepared = prepare(mode, arguments, y);
  kernels::cuda::transform(prepared.call, source_of(x, y.strides()),
                           y.mutable_data_ptr(), current_stream());
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  return y;
}

void fake_quantize_inplace_cuda(const at::Tensor& x, const at::Tensor& min,
                                const at::Tensor& max, const at::Tensor& grid,
                                bool symmetric, OptionalAxis channel_axis) {
  const at::Tensor dense = dense_like(x);
  const PreparedCall prepared =
      prepare(QuantMode::fake_quantize,
              {x, min, max, grid, symmetric, channel_axis}, dense);
  const c10::cuda::CUDAGuard guard(x.device());
  kernels::cuda::transform(prepared.call, source_of(x, dense.strides()),
                           target_of(x, dense.strides()), current_stream());
  C10_CUDA_KERNEL_LAUNCH_CHECK();
}

// The gradients to min and max; the one to x is written to dx, which may be
// grad. `dense_strides`: those of a dense tensor like x.
std::tuple<at::Tensor, at::Tensor> launch_gradient(
    const PreparedCall& prepared, const at::Tensor& grad, const at::Tensor& x,
    const at::Tensor& dx, at::IntArrayRef dense_strides) {
  const at::Tensor dmin = empty_range_grad(prepared.min);
  const at::Tensor dmax = empty_range_grad(prepared.max);
  const auto bytes = static_cast<std::int64_t>(
      kernels::cuda::gradient_workspace_bytes(prepared.call.layout));
  const at::Tensor workspace = at::empty({bytes}, x.options().dtype(at::kByte));
  kernels::cuda::gradient(prepared.call, source_of(grad, dense_strides),
                          source_of(x, dense_strides),
                          target_of(dx, dense_strides), dmin.mutable_data_ptr(),
                          dmax.mutable_data_ptr(), workspace.mutable_data_ptr(),
                          current_stream());
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  return {dmin, dmax};
}

template <QuantMode mode>
std::tuple<at::Tensor, at::Tensor, at::Tensor> backward_cuda(
    const at::Tensor& grad, const at::Tensor& x, const at::Tensor& min,
    const at::Tensor& max, const at::Tensor& grid, bool symmetric,
    OptionalAxis channel_axis) {
  const QuantArguments arguments{x, min, max, grid, symmetric, channel_axis};
  check_arguments(mode, arguments);
  check_grad(mode, grad, x);
  const c10::cuda::CUDAGuard guard(x.device());
  const at::Tensor dx = at::empty_like(x);
  const auto [dmin, dmax] =
      launch_gradient(prepare(mode, arguments, dx), grad, x, dx, dx.strides());
  return {dx, dmin, dmax};
}

std::tuple<at::Tensor, at::Tensor> backward_inplace_cuda(
    const at::Tensor& grad, const at::Tensor& x, const at::Tensor& min,
    const at::Tensor& max, const at::Tensor& grid, bool symmetric,
    OptionalAxis channel_axis) {
  const at::Tensor dense = dense_like(x);
  const PreparedCall prepared =
      prepare(QuantMode::fake_quantize,
              {x, min, max, grid, symmetric, channel_axis}, dense);
  check_grad(QuantMode::fake_quantize, grad, x);
  const c10::cuda::CUDAGuard guard(x.device());
  return launch_gradient(prepared, grad, x, grad, dense.strides());
}

void launch_input_gradient(const PreparedCall& prepared, const at::Tensor& grad,
                           const at::Tensor& x, const at::Tensor& dx,
                           at::IntArrayRef dense_strides) {
  kernels::cuda::input_gradient(prepared.call, source_of(grad, dense_strides),
                                source_of(x, dense_strides),
                                target_of(dx, dense_strides), current_stream());
  C10_CUDA_KERNEL_LAUNCH_CHECK();
}

at::Tensor input_gradient_cuda(const at::Tensor& grad, const at::Tensor& x,
                               const at::Tensor& min, const at::Tensor& max,
                               const at::Tensor& grid, bool symmetric,
                               OptionalAxis channel_axis) {
  const QuantArguments arguments{x, min, max, grid, symmetric, channel_axis};
  check_arguments(QuantMode::fake_quantize, arguments);
  check_grad(QuantMode::fake_quantize, grad, x);
  const c10::cuda::CUDAGuard guard(x.device());
  const at::Tensor dx = at::empty_like(x);
  launch_input_gradient(prepare(QuantMode::fake_quantize, arguments, dx), grad,
                        x, dx, dx.strides());
  return dx;
}

void input_gradient_inplace_cuda(const at::Tensor& grad, const at::Tensor& x,
                                 const at::Tensor& min, const at::Tensor& max,
                                 const at::Tensor& grid, bool symmetric,
                                 OptionalAxis channel_axis) {
  const at::Tensor dense = dense_like(x);
  const PreparedCall prepared =
      prepare(QuantMode::fake_quantize,
              {x, min, max, grid, symmetric, channel_axis}, dense);
  check_grad(QuantMode::fake_quantize, grad, x);
  const c10::cuda::CUDAGuard guard(x.device());
  launch_input_gradient(prepared, grad, x, grad, dense.strides());
}

TORCH_LIBRARY_IMPL(aimetpp, CUDA, m) {
  m.impl("fake_quantize_input_gradient", &input_gradient_cuda);
  m.impl("fake_quantize_input_gradient_", &input_gradient_inplace_cuda);
  m.impl("fake_quantize", &forward_cuda<QuantMode::fake_quantize>);
  m.impl("fake_quantize_", &fake_quantize_inplace_cuda);
  m.impl("quantize", &forward_cuda<QuantMode::quantize>);
  m.impl("dequantize", &forward_cuda<QuantMode::dequantize>);
  m.impl("fake_quantize_backward", &backward_cuda<QuantMode::fake_quantize>);
  m.impl("fake_quantize_backward_", &backward_inplace_cuda);
  m.impl("quantize_backward", &backward_cuda<QuantMode::quantize>);
  m.impl("dequantize_backward", &backward_cuda<QuantMode::dequantize>);
}

}  // namespace
}  // namespace aimetpp::ops
