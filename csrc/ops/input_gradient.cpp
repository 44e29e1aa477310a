// SPDX-License-Identifier: BSD-3-Clause
// The gradient of fake_quantize to x alone, where the range is not trained: no
// sums, and on the CPU no divisions.
#include <ATen/ops/empty_like.h>
#include <torch/library.h>

#include <string>

#include "ops/fake_quant.h"
#include "ops/fake_quant_call.h"
#include "ops/parallel.h"
#include "ops/slabs.h"
#include "ops/strides.h"

namespace aimetpp::ops {
namespace {

constexpr QuantMode kMode = QuantMode::fake_quantize;
using OptionalAxis = std::optional<std::int64_t>;

// dx, which may be grad; all as they lie in memory.
void run(const kernels::QuantCall& call, const at::Tensor& grad,
         const at::Tensor& x, const at::Tensor& dx,
         at::IntArrayRef dense_strides, OptionalAxis channel_axis) {
  if (x.strides() == dense_strides && grad.strides() == dense_strides &&
      dx.strides() == dense_strides) {
    kernels::cpu::input_gradient(call, grad.const_data_ptr(),
                                 x.const_data_ptr(), dx.mutable_data_ptr(),
                                 at_parallel_for);
    return;
  }
  mask_gathered(grad, x, dx, dense_strides,
                wrapped_axis("fake_quantize", "x", x, channel_axis),
                [&call](const Slab& slab, const at::Tensor& part,
                        const at::Tensor& values) {
                  kernels::cpu::input_gradient(
                      call_of(call, slab), part.const_data_ptr(),
                      values.const_data_ptr(), part.mutable_data_ptr(),
                      at_parallel_for);
                });
}

at::Tensor input_gradient_cpu(const at::Tensor& grad, const at::Tensor& x,
                              const at::Tensor& min, const at::Tensor& max,
                              const at::Tensor& grid, bool symmetric,
                              OptionalAxis channel_axis) {
  const at::Tensor dx = empty_result(x);
  const PreparedCall prepared =
      prepare(kMode, {x, min, max, grid, symmetric, channel_axis}, dx);
  check_grad(kMode, grad, x);
  check_grid_values(kMode, prepared.grid);
  run(prepared.call, grad, x, dx, dx.strides(), channel_axis);
  return dx;
}

void input_gradient_inplace_cpu(const at::Tensor& grad, const at::Tensor& x,
                                const at::Tensor& min, const at::Tensor& max,
                                const at::Tensor& grid, bool symmetric,
                                OptionalAxis channel_axis) {
  const at::Tensor dense = dense_like(x);
  const PreparedCall prepared =
      prepare(kMode, {x, min, max, grid, symmetric, channel_axis}, dense);
  check_grad(kMode, grad, x);
  check_grid_values(kMode, prepared.grid);
  run(prepared.call, grad, x, grad, dense.strides(), channel_axis);
}

at::Tensor input_gradient_meta(const at::Tensor& grad, const at::Tensor& x,
                               const at::Tensor& min, const at::Tensor& max,
                               const at::Tensor& grid, bool symmetric,
                               OptionalAxis channel_axis) {
  check_arguments(kMode, {x, min, max, grid, symmetric, channel_axis});
  check_grad(kMode, grad, x);
  return at::empty_like(x);
}

void input_gradient_inplace_meta(const at::Tensor& grad, const at::Tensor& x,
                                 const at::Tensor& min, const at::Tensor& max,
                                 const at::Tensor& grid, bool symmetric,
                                 OptionalAxis channel_axis) {
  check_arguments(kMode, {x, min, max, grid, symmetric, channel_axis});
  check_grad(kMode, grad, x);
}

TORCH_LIBRARY_FRAGMENT(aimetpp, m) {
  const std::string arguments =
      "Tensor x, Tensor min, Tensor max, Tensor grid, bool symmetric, "
      "int? channel_axis=None)";
  const auto define = [&m](const std::string& schema) {
    m.def(schema.c_str(), {at::Tag::pt2_compliant_tag});
  };
  define("fake_quantize_input_gradient(Tensor grad, " + arguments +
         " -> Tensor");
  // The gradient to x takes the place of `grad`.
  define("fake_quantize_input_gradient_(Tensor(a!) grad, " + arguments +
         " -> ()");
}

TORCH_LIBRARY_IMPL(aimetpp, CPU, m) {
  m.impl("fake_quantize_input_gradient", &input_gradient_cpu);
  m.impl("fake_quantize_input_gradient_", &input_gradient_inplace_cpu);
}

TORCH_LIBRARY_IMPL(aimetpp, Meta, m) {
  m.impl("fake_quantize_input_gradient", &input_gradient_meta);
  m.impl("fake_quantize_input_gradient_", &input_gradient_inplace_meta);
}

}  // namespace
}  // namespace aimetpp::ops
