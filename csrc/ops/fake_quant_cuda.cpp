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

namespace aimetpp::ops {
namespace {

template <QuantMode mode>
at::Tensor forward_cuda(const at::Tensor& x, const at::Tensor& min,
                        const at::Tensor& max, const at::Tensor& grid,
                        bool symmetric,
                        std::optional<std::int64_t> channel_axis) {
  // The checks come first: x may be on the CPU beside a range on the device.
  const PreparedCall prepared =
      prepare(mode, {x, min, max, grid, symmetric, channel_axis});
  const c10::cuda::CUDAGuard guard(x.device());
  at::Tensor y = at::empty_like(prepared.x);
  kernels::cuda::transform(prepared.call, prepared.x.const_data_ptr(),
                           y.mutable_data_ptr(),
                           c10::cuda::getCurrentCUDAStream().stream());
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  return y;
}

void fake_quantize_inplace_cuda(const at::Tensor& x, const at::Tensor& min,
                                const at::Tensor& max, const at::Tensor& grid,
                                bool symmetric,
                                std::optional<std::int64_t> channel_axis) {
  const PreparedCall prepared = prepare(
      QuantMode::fake_quantize, {x, min, max, grid, symmetric, channel_axis});
  const c10::cuda::CUDAGuard guard(x.device());
  kernels::cuda::transform(prepared.call, prepared.x.const_data_ptr(),
                           prepared.x.mutable_data_ptr(),
                           c10::cuda::getCurrentCUDAStream().stream());
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  write_back(prepared, x);
}

template <QuantMode mode>
std::tuple<at::Tensor, at::Tensor, at::Tensor> backward_cuda(
    const at::Tensor& grad, const at::Tensor& x, const at::Tensor& min,
    const at::Tensor& max, const at::Tensor& grid, bool symmetric,
    std::optional<std::int64_t> channel_axis) {
  const PreparedCall prepared =
      prepare(mode, {x, min, max, grid, symmetric, channel_axis});
  check_grad(mode, grad, x);
  const c10::cuda::CUDAGuard guard(x.device());
  const at::Tensor upstream = laid_out_as(grad, prepared.x);
  at::Tensor dx = at::empty_like(prepared.x);
  at::Tensor dmin = empty_range_grad(min);
  at::Tensor dmax = empty_range_grad(max);
  const auto bytes = static_cast<std::int64_t>(
      kernels::cuda::gradient_workspace_bytes(prepared.call.layout));
  at::Tensor workspace = at::empty({bytes}, x.options().dtype(at::kByte));
  kernels::cuda::gradient(
      prepared.call, upstream.const_data_ptr(), prepared.x.const_data_ptr(),
      dx.mutable_data_ptr(), dmin.mutable_data_ptr(), dmax.mutable_data_ptr(),
      workspace.mutable_data_ptr(), c10::cuda::getCurrentCUDAStream().stream());
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  return {dx, dmin, dmax};
}

std::tuple<at::Tensor, at::Tensor> backward_inplace_cuda(
    const at::Tensor& grad, const at::Tensor& x, const at::Tensor& min,
    const at::Tensor& max, const at::Tensor& grid, bool symmetric,
    std::optional<std::int64_t> channel_axis) {
  const auto [dx, dmin, dmax] = backward_cuda<QuantMode::fake_quantize>(
      grad, x, min, max, grid, symmetric, channel_axis);
  grad.copy_(dx);
  return {dmin, dmax};
}

void launch_input_gradient(const PreparedCall& prepared,
                           const at::Tensor& upstream, const at::Tensor& dx) {
  const c10::cuda::CUDAGuard guard(dx.device());
  kernels::cuda::input_gradient(
      prepared.call, upstream.const_data_ptr(), prepared.x.const_data_ptr(),
      dx.mutable_data_ptr(), c10::cuda::getCurrentCUDAStream().stream());
  C10_CUDA_KERNEL_LAUNCH_CHECK();
}

at::Tensor input_gradient_cuda(const at::Tensor& grad, const at::Tensor& x,
                               const at::Tensor& min, const at::Tensor& max,
                               const at::Tensor& grid, bool symmetric,
                               std::optional<std::int64_t> channel_axis) {
  const PreparedCall prepared = prepare(
      QuantMode::fake_quantize, {x, min, max, grid, symmetric, channel_axis});
  check_grad(QuantMode::fake_quantize, grad, x);
  const at::Tensor dx = at::empty_like(prepared.x);
  launch_input_gradient(prepared, laid_out_as(grad, prepared.x), dx);
  return dx;
}

void input_gradient_inplace_cuda(const at::Tensor& grad, const at::Tensor& x,
                                 const at::Tensor& min, const at::Tensor& max,
                                 const at::Tensor& grid, bool symmetric,
                                 std::optional<std::int64_t> channel_axis) {
  const PreparedCall prepared = prepare(
      QuantMode::fake_quantize, {x, min, max, grid, symmetric, channel_axis});
  check_grad(QuantMode::fake_quantize, grad, x);
  const at::Tensor upstream = laid_out_as(grad, prepared.x);
  launch_input_gradient(prepared, upstream, upstream);
  if (!upstream.is_same(grad)) grad.copy_(upstream);
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
