// SPDX-License-Identifier: BSD-3-Clause
// float_quantize: schema, argument checks, and the CPU, Meta and Autograd
// kernels.
#include <ATen/ops/empty_like.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <string>

#include "ops/fake_quant.h"
#include "ops/fake_quant_call.h"
#include "ops/find_op.h"
#include "ops/float_quant_call.h"
#include "ops/parallel.h"
#include "ops/slabs.h"

namespace aimetpp::ops {

constexpr const char* kName = "float_quantize";

void check_float_arguments(const FloatArguments& arguments) {
  const auto& [x, exponent_bits, mantissa_bits, saturate, scale, channel_axis] =
      arguments;
  TORCH_CHECK_TYPE(storage_of(x.scalar_type()).has_value(), kName,
                   ": x must be float32, float64, float16 or bfloat16, got ",
                   x.scalar_type());
  const FloatFormat format{static_cast<int>(exponent_bits),
                           static_cast<int>(mantissa_bits), saturate};
  TORCH_CHECK_VALUE(
      exponent_bits < 16 && mantissa_bits < 16 && is_known(format), kName,
      ": exponent_bits and mantissa_bits must be 5 and 10, 8 and 7, 5 and 2, 4 "
      "and 3, 3 and 2, 2 and 3, or 2 and 1, got ",
      exponent_bits, " and ", mantissa_bits);
  TORCH_CHECK_VALUE(saturate || has_overflow(format), kName,
                    ": saturate must be true for ", exponent_bits,
                    " exponent bits, which have no infinity, got false");
  const auto axis = wrapped_axis(kName, "x", x, channel_axis);
  if (!scale) {
    TORCH_CHECK_VALUE(!axis, kName, ": channel_axis is for scale's, got ",
                      channel_axis.value_or(0), " without a scale");
    return;
  }
  TORCH_CHECK_TYPE(scale->scalar_type() == at::kFloat, kName,
                   ": scale must be float32, got ", scale->scalar_type());
  TORCH_CHECK_VALUE(scale->device() == x.device(), kName,
                    ": scale must be on x's device ", x.device(), ", got ",
                    scale->device());
  const c10::SymInt count = axis ? x.sym_size(*axis) : c10::SymInt(1);
  TORCH_CHECK_VALUE(scale->sym_numel() == count, kName, ": scale must have ",
                    count, " elements", axis ? " (x.size(channel_axis))" : "",
                    ", got ", scale->sym_numel());
}

void check_float_grad(const at::Tensor& grad, const at::Tensor& x) {
  TORCH_CHECK_VALUE(grad.sym_sizes() == x.sym_sizes(), kName,
                    "_backward: grad must have x's shape ", x.sym_sizes(),
                    ", got ", grad.sym_sizes());
  TORCH_CHECK_TYPE(grad.scalar_type() == x.scalar_type(), kName,
                   "_backward: grad must have x's dtype ", x.scalar_type(),
                   ", got ", grad.scalar_type());
  TORCH_CHECK_VALUE(grad.device() == x.device(), kName,
                    "_backward: grad must be on x's device ", x.device(),
                    ", got ", grad.device());
}

PreparedFloatCall prepare_float(const FloatArguments& arguments,
                                const at::Tensor& dense) {
  check_float_arguments(arguments);
  PreparedFloatCall prepared{
      arguments.scale ? arguments.scale->contiguous() : at::Tensor(), {}};
  kernels::FloatCall& call = prepared.call;
  call.format = {static_cast<int>(arguments.exponent_bits),
                 static_cast<int>(arguments.mantissa_bits), arguments.saturate};
  call.storage = *storage_of(arguments.x.scalar_type());
  call.layout = layout_of(
      dense, wrapped_axis(kName, "x", arguments.x, arguments.channel_axis));
  if (arguments.scale) call.scale = prepared.scale.const_data_ptr<float>();
  return prepared;
}

namespace {

using OptionalAxis = std::optional<std::int64_t>;
using OptionalTensor = std::optional<at::Tensor>;
using Forward = at::Tensor(const at::Tensor&, std::int64_t, std::int64_t, bool,
                           const OptionalTensor&, OptionalAxis);
using Backward = at::Tensor(const at::Tensor&, const at::Tensor&, std::int64_t,
                            std::int64_t, bool, const OptionalTensor&,
                            OptionalAxis);

kernels::FloatCall call_of(const kernels::FloatCall& whole, const Slab& slab) {
  kernels::FloatCall call = whole;
  call.layout = slab.layout;
  if (call.scale != nullptr) call.scale += slab.first_channel;
  return call;
}

const auto& forward_op() {
  static const auto op = find_op<Forward>("float_quantize");
  return op;
}

const auto& backward_op() {
  static const auto op = find_op<Backward>("float_quantize_backward");
  return op;
}

at::Tensor forward_cpu(const at::Tensor& x, std::int64_t exponent_bits,
                       std::int64_t mantissa_bits, bool saturate,
                       const OptionalTensor& scale, OptionalAxis channel_axis) {
  const at::Tensor y = empty_result(x);
  const PreparedFloatCall prepared = prepare_float(
      {x, exponent_bits, mantissa_bits, saturate, scale, channel_axis}, y);
  if (x.is_non_overlapping_and_dense()) {
    kernels::cpu::float_quantize(prepared.call, x.const_data_ptr(),
                                 y.mutable_data_ptr(), at_parallel_for);
    return y;
  }
  const OptionalAxis axis = wrapped_axis(kName, "x", x, channel_axis);
  for (const Slab& slab : slabs_of(y.sizes(), y.strides(), axis)) {
    const at::Tensor part = view_of(y, slab);
    part.copy_(view_of(x, slab));
    kernels::cpu::float_quantize(call_of(prepared.call, slab),
                                 part.const_data_ptr(), part.mutable_data_ptr(),
                                 at_parallel_for);
  }
  return y;
}

at::Tensor backward_cpu(const at::Tensor& grad, const at::Tensor& x,
                        std::int64_t exponent_bits, std::int64_t mantissa_bits,
                        bool saturate, const OptionalTensor& scale,
                        OptionalAxis channel_axis) {
  const at::Tensor dx = empty_result(x);
  const PreparedFloatCall prepared = prepare_float(
      {x, exponent_bits, mantissa_bits, saturate, scale, channel_axis}, dx);
  check_float_grad(grad, x);
  if (x.strides() == dx.strides() && grad.strides() == dx.strides()) {
    kernels::cpu::float_gradient(prepared.call, grad.const_data_ptr(),
                                 x.const_data_ptr(), dx.mutable_data_ptr(),
                                 at_parallel_for);
    return dx;
  }
  mask_gathered(
      grad, x, dx, dx.strides(), wrapped_axis(kName, "x", x, channel_axis),
      [&call = prepared.call](const Slab& slab, const at::Tensor& part,
                              const at::Tensor& values) {
        kernels::cpu::float_gradient(call_of(call, slab), part.const_data_ptr(),
                                     values.const_data_ptr(),
                                     part.mutable_data_ptr(), at_parallel_for);
      });
  return dx;
}

at::Tensor forward_meta(const at::Tensor& x, std::int64_t exponent_bits,
                        std::int64_t mantissa_bits, bool saturate,
                        const OptionalTensor& scale,
                        OptionalAxis channel_axis) {
  check_float_arguments(
      {x, exponent_bits, mantissa_bits, saturate, scale, channel_axis});
  return at::empty_like(x);
}

at::Tensor backward_meta(const at::Tensor& grad, const at::Tensor& x,
                         std::int64_t exponent_bits, std::int64_t mantissa_bits,
                         bool saturate, const OptionalTensor& scale,
                         OptionalAxis channel_axis) {
  check_float_arguments(
      {x, exponent_bits, mantissa_bits, saturate, scale, channel_axis});
  check_float_grad(grad, x);
  return at::empty_like(x);
}

class FloatQuantize : public torch::autograd::Function<FloatQuantize> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* context,
                            const at::Tensor& x, std::int64_t exponent_bits,
                            std::int64_t mantissa_bits, bool saturate,
                            const OptionalTensor& scale,
                            OptionalAxis channel_axis) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    context->saved_data["saturate"] = saturate;
    if (saturate) {  // else the gradient passes as it is
      context->save_for_backward({x, scale.value_or(at::Tensor())});
      context->saved_data["exponent_bits"] = exponent_bits;
      context->saved_data["mantissa_bits"] = mantissa_bits;
      context->saved_data["channel_axis"] = channel_axis;
    }
    return forward_op().call(x, exponent_bits, mantissa_bits, saturate, scale,
                             channel_axis);
  }

  static torch::autograd::variable_list backward(
      torch::autograd::AutogradContext* context,
      const torch::autograd::variable_list& grads) {
    if (!context->saved_data["saturate"].toBool()) {
      return {grads[0], {}, {}, {}, {}, {}};
    }
    const auto saved = context->get_saved_variables();
    const OptionalTensor scale =
        saved[1].defined() ? OptionalTensor(saved[1]) : std::nullopt;
    return {
        backward_op().call(
            grads[0], saved[0], context->saved_data["exponent_bits"].toInt(),
            context->saved_data["mantissa_bits"].toInt(), true, scale,
            context->saved_data["channel_axis"].to<OptionalAxis>()),
        {},
        {},
        {},
        {},
        {}};
  }
};

at::Tensor forward_autograd(const at::Tensor& x, std::int64_t exponent_bits,
                            std::int64_t mantissa_bits, bool saturate,
                            const OptionalTensor& scale,
                            OptionalAxis channel_axis) {
  TORCH_CHECK_VALUE(!scale || !scale->requires_grad(), kName,
                    ": scale has no gradient, but requires one");
  return FloatQuantize::apply(x, exponent_bits, mantissa_bits, saturate, scale,
                              channel_axis);
}

TORCH_LIBRARY_FRAGMENT(aimetpp, m) {
  const std::string arguments =
      "Tensor x, int exponent_bits, int mantissa_bits, bool saturate, "
      "Tensor? scale=None, int? channel_axis=None) -> Tensor";
  m.def(("float_quantize(" + arguments).c_str(), {at::Tag::pt2_compliant_tag});
  m.def(("float_quantize_backward(Tensor grad, " + arguments).c_str(),
        {at::Tag::pt2_compliant_tag});
}

TORCH_LIBRARY_IMPL(aimetpp, CPU, m) {
  m.impl("float_quantize", &forward_cpu);
  m.impl("float_quantize_backward", &backward_cpu);
}

TORCH_LIBRARY_IMPL(aimetpp, Meta, m) {
  m.impl("float_quantize", &forward_meta);
  m.impl("float_quantize_backward", &backward_meta);
}

TORCH_LIBRARY_IMPL(aimetpp, Autograd, m) {
  m.impl("float_quantize", &forward_autograd);
  m.impl("float_quantize_backward",
         torch::autograd::autogradNotImplementedFallback());
}

}  // namespace
}  // namespace aimetpp::ops
