// SPDX-License-Identifier: BSD-3-Clause
// The CUDA kernels of the ops on integer grids; compiled only where torch
// itself was built for CUDA.
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include <tuple>
#include <vector>

#include "ops/fake_quant_call.h"
#include "ops/strides.h"

namespace aimetpp::ops {
namespace {

using OptionalAxis = std::optional<std::int64_t>;
using RangeGradients = std::tuple<at::Tensor, at::Tensor>;

CUstream_st* current_stream() {
  return c10::cuda::getCurrentCUDAStream().stream();
}

// What every kernel here begins with: the arguments checked, and then (x may be
// on the CPU beside a range on the device) x's device made the current one.
// Kernels walk in the order of a dense tensor like x.
class Call {
 public:
  Call(QuantMode mode, const QuantArguments& arguments)
      : dense_(dense_like(arguments.x)),
        prepared_(prepare(mode, arguments, dense_)),
        guard_(arguments.x.device()) {}

  [[nodiscard]] const kernels::QuantCall& quant() const {
    return prepared_.call;
  }
  [[nodiscard]] kernels::Source source(const at::Tensor& tensor) const {
    return source_of(tensor, dense_.strides());
  }
  [[nodiscard]] kernels::Target target(const at::Tensor& tensor) const {
    return target_of(tensor, dense_.strides());
  }

 private:
  at::Tensor dense_;
  PreparedCall prepared_;
  c10::cuda::CUDAGuard guard_;
};

void launch_transform(const Call& call, const at::Tensor& x,
                      const at::Tensor& y) {
  kernels::cuda::transform(call.quant(), call.source(x), call.target(y),
                           current_stream());
  C10_CUDA_KERNEL_LAUNCH_CHECK();
}

template <QuantMode mode>
at::Tensor forward_cuda(const at::Tensor& x, const at::Tensor& min,
                        const at::Tensor& max, const at::Tensor& grid,
                        bool symmetric, OptionalAxis channel_axis) {
  const Call call(mode, {x, min, max, grid, symmetric, channel_axis});
  const at::Tensor y = at::empty_like(x);
  launch_transform(call, x, y);
  return y;
}

void fake_quantize_inplace_cuda(const at::Tensor& x, const at::Tensor& min,
                                const at::Tensor& max, const at::Tensor& grid,
                                bool symmetric, OptionalAxis channel_axis) {
  launch_transform(Call(QuantMode::fake_quantize,
                        {x, min, max, grid, symmetric, channel_axis}),
                   x, x);
}

void into_cuda(const at::Tensor& y, const at::Tensor& x, const at::Tensor& min,
               const at::Tensor& max, const at::Tensor& grid, bool symmetric,
               OptionalAxis channel_axis) {
  check_written(y, x);
  launch_transform(Call(QuantMode::fake_quantize,
                        {x, min, max, grid, symmetric, channel_axis}),
                   x, y);
}

// The gradients to min and max; the one to x is written to dx, which may be
// grad.
RangeGradients launch_gradient(const Call& call, const at::Tensor& grad,
                               const at::Tensor& x, const at::Tensor& min,
                               const at::Tensor& max, const at::Tensor& dx) {
  const at::Tensor dmin = empty_range_grad(min);
  const at::Tensor dmax = empty_range_grad(max);
  const auto bytes = static_cast<std::int64_t>(
      kernels::cuda::gradient_workspace_bytes(call.quant().layout));
  const at::Tensor workspace = at::empty({bytes}, x.options().dtype(at::kByte));
  kernels::cuda::gradient(call.quant(), call.source(grad), call.source(x),
                          call.target(dx), dmin.mutable_data_ptr(),
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
  const Call call(mode, {x, min, max, grid, symmetric, channel_axis});
  check_grad(mode, grad, x);
  const at::Tensor dx = at::empty_like(x);
  const auto [dmin, dmax] = launch_gradient(call, grad, x, min, max, dx);
  return {dx, dmin, dmax};
}

RangeGradients backward_inplace_cuda(const at::Tensor& grad,
                                     const at::Tensor& x, const at::Tensor& min,
                                     const at::Tensor& max,
                                     const at::Tensor& grid, bool symmetric,
                                     OptionalAxis channel_axis) {
  const Call call(QuantMode::fake_quantize,
                  {x, min, max, grid, symmetric, channel_axis});
  check_grad(QuantMode::fake_quantize, grad, x);
  return launch_gradient(call, grad, x, min, max, grad);
}

void launch_input_gradient(const Call& call, const at::Tensor& grad,
                           const at::Tensor& x, const at::Tensor& dx) {
  check_grad(QuantMode::fake_quantize, grad, x);
  kernels::cuda::input_gradient(call.quant(), call.source(grad), call.source(x),
                                call.target(dx), current_stream());
  C10_CUDA_KERNEL_LAUNCH_CHECK();
}

at::Tensor input_gradient_cuda(const at::Tensor& grad, const at::Tensor& x,
                               const at::Tensor& min, const at::Tensor& max,
                               const at::Tensor& grid, bool symmetric,
                               OptionalAxis channel_axis) {
  const Call call(QuantMode::fake_quantize,
                  {x, min, max, grid, symmetric, channel_axis});
  const at::Tensor dx = at::empty_like(x);
  launch_input_gradient(call, grad, x, dx);
  return dx;
}

void input_gradient_inplace_cuda(const at::Tensor& grad, const at::Tensor& x,
                                 const at::Tensor& min, const at::Tensor& max,
                                 const at::Tensor& grid, bool symmetric,
                                 OptionalAxis channel_axis) {
  launch_input_gradient(Call(QuantMode::fake_quantize,
                             {x, min, max, grid, symmetric, channel_axis}),
                        grad, x, grad);
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> observed_cuda(
    const at::Tensor& x, const at::Tensor& min, const at::Tensor& max,
    const at::Tensor& grid, bool symmetric) {
  const Call call(QuantMode::fake_quantize,
                  {x, min, max, grid, symmetric, std::nullopt});
  const at::Tensor y = at::empty_like(x);
  const at::Tensor least = empty_extreme(x);
  const at::Tensor largest = empty_extreme(x);
  kernels::cuda::transform_observed(
      call.quant(), call.source(x), call.target(y),
      least.mutable_data_ptr<float>(), largest.mutable_data_ptr<float>(),
      current_stream());
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  return {y, least, largest};
}

std::vector<at::Tensor> many_cuda(const at::Tensor& x, at::TensorList min,
                                  at::TensorList max, at::TensorList grid,
                                  const c10::List<bool>& symmetric,
                                  OptionalAxis channel_axis) {
  const ManyArguments arguments{x, min, max, grid, symmetric, channel_axis};
  const at::Tensor dense = dense_like(x);
  std::vector<at::Tensor> results;
  std::vector<void*> ys;
  std::vector<PreparedCall> prepared;
  std::vector<kernels::QuantCall> calls;
  for (std::size_t i = 0; i < arguments.count(); ++i) {
    prepared.push_back(
        prepare(QuantMode::fake_quantize, arguments.at(i), dense));
    calls.push_back(prepared[i].call);
    results.push_back(at::empty_like(x));
    ys.push_back(results[i].mutable_data_ptr());
  }
  const c10::cuda::CUDAGuard guard(x.device());
  kernels::cuda::transform_many(calls, source_of(x, dense.strides()), ys,
                                current_stream());
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  return results;
}

TORCH_LIBRARY_IMPL(aimetpp, CUDA, m) {
  m.impl("fake_quantize_input_gradient", &input_gradient_cuda);
  m.impl("fake_quantize_input_gradient_", &input_gradient_inplace_cuda);
  m.impl("fake_quantize", &forward_cuda<QuantMode::fake_quantize>);
  m.impl("fake_quantize_", &fake_quantize_inplace_cuda);
  m.impl("fake_quantize_into", &into_cuda);
  m.impl("quantize", &forward_cuda<QuantMode::quantize>);
  m.impl("dequantize", &forward_cuda<QuantMode::dequantize>);
  m.impl("fake_quantize_many", &many_cuda);
  m.impl("fake_quantize_observed", &observed_cuda);
  m.impl("fake_quantize_backward", &backward_cuda<QuantMode::fake_quantize>);
  m.impl("fake_quantize_backward_", &backward_inplace_cuda);
  m.impl("quantize_backward", &backward_cuda<QuantMode::quantize>);
  m.impl("dequantize_backward", &backward_cuda<QuantMode::dequantize>);
}

}  // namespace
}  // namespace aimetpp::ops
