// SPDX-License-Identifier: BSD-3-Clause
// The Autograd and ADInplaceOrView kernels of the ops, and the ops as C++
// functions.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty_like.h>
#include <c10/core/impl/TorchDispatchModeTLS.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "ops/fake_quant.h"
#include "ops/fake_quant_call.h"
#include "ops/find_op.h"

namespace aimetpp::ops {
namespace {

using OptionalAxis = std::optional<std::int64_t>;
using Gradients = std::tuple<at::Tensor, at::Tensor, at::Tensor>;
using Forward = at::Tensor(const at::Tensor&, const at::Tensor&,
                           const at::Tensor&, const at::Tensor&, bool,
                           OptionalAxis);
using InPlace = void(const at::Tensor&, const at::Tensor&, const at::Tensor&,
                     const at::Tensor&, bool, OptionalAxis);
using InPlaceBackward = std::tuple<at::Tensor, at::Tensor>(
    const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&,
    const at::Tensor&, bool, OptionalAxis);
using Backward = Gradients(const at::Tensor&, const at::Tensor&,
                           const at::Tensor&, const at::Tensor&,
                           const at::Tensor&, bool, OptionalAxis);

using InputGradient = at::Tensor(const at::Tensor&, const at::Tensor&,
                                 const at::Tensor&, const at::Tensor&,
                                 const at::Tensor&, bool, OptionalAxis);
using InPlaceInputGradient = void(const at::Tensor&, const at::Tensor&,
                                  const at::Tensor&, const at::Tensor&,
                                  const at::Tensor&, bool, OptionalAxis);

// The dispatcher's handle of the forward op of a mode, and of its backward.
template <QuantMode mode>
const auto& forward_op() {
  static const auto op = find_op<Forward>(op_name(mode));
  return op;
}

template <QuantMode mode>
const auto& backward_op() {
  static const auto op =
      find_op<Backward>(std::string(op_name(mode)) + "_backward");
  return op;
}

const auto& inplace_op() {
  static const auto op = find_op<InPlace>("fake_quantize_");
  return op;
}

const auto& inplace_backward_op() {
  static const auto op = find_op<InPlaceBackward>("fake_quantize_backward_");
  return op;
}

const auto& input_gradient_op() {
  static const auto op = find_op<InputGradient>("fake_quantize_input_gradient");
  return op;
}

const auto& inplace_input_gradient_op() {
  static const auto op =
      find_op<InPlaceInputGradient>("fake_quantize_input_gradient_");
  return op;
}

// Plain CPU memory that no other tensor shares, and nothing that watches.
bool has_own_memory(const at::Tensor& tensor) {
  using c10::DispatchKey;
  constexpr c10::DispatchKeySet kWrappers(
      {DispatchKey::Python, DispatchKey::Functionalize,
       DispatchKey::FuncTorchBatched, DispatchKey::FuncTorchGradWrapper,
       DispatchKey::ZeroTensor});
  return tensor.is_cpu() && tensor.layout() == at::kStrided &&
         tensor.has_storage() && tensor.storage().use_count() == 1 &&
         !tensor.key_set().has_any(kWrappers) &&
         !c10::impl::TorchDispatchModeTLS::any_modes_set();
}

// Whether a gradient that the engine passes on may be written into: nobody else
// has it, and it will not be differentiated.
bool is_only_ours(const at::Tensor& grad, const at::Tensor& x) {
  return !at::GradMode::is_enabled() && grad.use_count() == 1 &&
         has_own_memory(grad) && grad.is_non_overlapping_and_dense() &&
         grad.strides() == x.strides();
}

template <QuantMode mode, typename Derived>
class QuantFunction : public torch::autograd::Function<Derived> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* context,
                            const at::Tensor& x, const at::Tensor& min,
                            const at::Tensor& max, const at::Tensor& grid,
                            bool symmetric, OptionalAxis channel_axis) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    context->save_for_backward({x, min, max, grid});
    context->saved_data["symmetric"] = symmetric;
    context->saved_data["channel_axis"] = channel_axis;
    return forward_op<mode>().call(x, min, max, grid, symmetric, channel_axis);
  }

  static torch::autograd::variable_list backward(
      torch::autograd::AutogradContext* context,
      const torch::autograd::variable_list& grads) {
    const auto saved = context->get_saved_variables();
    const bool symmetric = context->saved_data["symmetric"].toBool();
    const auto channel_axis =
        context->saved_data["channel_axis"].template to<OptionalAxis>();
    // With gradients on, the second derivative is asked for, and has to raise.
    std::optional<at::AutoDispatchBelowADInplaceOrView> below_autograd;
    if (!at::GradMode::is_enabled()) below_autograd.emplace();
    if constexpr (mode == QuantMode::fake_quantize) {
      const bool ours = is_only_ours(grads[0], saved[0]);
      const at::Tensor& grad = grads[0];
      if (!context->needs_input_grad(1) && !context->needs_input_grad(2)) {
        if (ours) {
          inplace_input_gradient_op().call(grad, saved[0], saved[1], saved[2],
                                           saved[3], symmetric, channel_axis);
          return {grad, {}, {}, {}, {}, {}};
        }
        return {input_gradient_op().call(grad, saved[0], saved[1], saved[2],
                                         saved[3], symmetric, channel_axis),
                {},
                {},
                {},
                {},
                {}};
      }
      if (ours) {
        auto [dmin, dmax] =
            inplace_backward_op().call(grad, saved[0], saved[1], saved[2],
                                       saved[3], symmetric, channel_axis);
        return {grad, dmin, dmax, {}, {}, {}};
      }
    }
    auto [dx, dmin, dmax] =
        backward_op<mode>().call(grads[0], saved[0], saved[1], saved[2],
                                 saved[3], symmetric, channel_axis);
    return {dx, dmin, dmax, {}, {}, {}};
  }
};

// x as a tensor of its own over the same memory, with its own version counter:
// what autograd saves of it stays valid when x is given another value.
class HandOver : public torch::autograd::Function<HandOver> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* /*context*/,
                            const at::Tensor& x) {
    return x.variable_data();
  }

  static torch::autograd::variable_list backward(
      torch::autograd::AutogradContext* /*context*/,
      const torch::autograd::variable_list& grads) {
    return {grads[0]};
  }
};

// target with y's memory and y's history. The gradient goes to y alone: what
// target was before is gone, and no zeros are made for it.
class ReplaceValue : public torch::autograd::Function<ReplaceValue> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* context,
                            at::Tensor target, const at::Tensor& y) {
    target.unsafeGetTensorImpl()->set_storage_keep_dtype(y.storage());
    context->mark_dirty({target});
    return target;
  }

  static torch::autograd::variable_list backward(
      torch::autograd::AutogradContext* /*context*/,
      const torch::autograd::variable_list& grads) {
    return {at::Tensor(), grads[0]};
  }
};

// Named, because the names are what grad_fn and autograd's messages show.
class FakeQuantize
    : public QuantFunction<QuantMode::fake_quantize, FakeQuantize> {};
class Quantize : public QuantFunction<QuantMode::quantize, Quantize> {};
class Dequantize : public QuantFunction<QuantMode::dequantize, Dequantize> {};

bool is_differentiated(const at::Tensor& tensor) {
  // A forward-mode tangent too: the Function refuses it with an error.
  return (at::GradMode::is_enabled() && tensor.requires_grad()) ||
         tensor._fw_grad(/*level=*/0).defined();
}

template <QuantMode mode, typename Function>
at::Tensor forward_autograd(const at::Tensor& x, const at::Tensor& min,
                            const at::Tensor& max, const at::Tensor& grid,
                            bool symmetric, OptionalAxis channel_axis) {
  if (is_differentiated(x) || is_differentiated(min) ||
      is_differentiated(max)) {
    return Function::apply(x, min, max, grid, symmetric, channel_axis);
  }
  const at::AutoDispatchBelowADInplaceOrView below_autograd;
  return forward_op<mode>().call(x, min, max, grid, symmetric, channel_axis);
}

// The straight-through gradient needs the values that are overwritten.
void inplace_autograd(const at::Tensor& x, const at::Tensor& min,
                      const at::Tensor& max, const at::Tensor& grid,
                      bool symmetric, OptionalAxis channel_axis) {
  TORCH_CHECK(!is_differentiated(x) && !is_differentiated(min) &&
                  !is_differentiated(max),
              "fake_quantize_: has no gradient; use fake_quantize, or "
              "torch.no_grad()");
  const at::AutoDispatchBelowAutograd below_autograd;
  inplace_op().call(x, min, max, grid, symmetric, channel_axis);
}

void inplace_raising_version(const at::Tensor& x, const at::Tensor& min,
                             const at::Tensor& max, const at::Tensor& grid,
                             bool symmetric, OptionalAxis channel_axis) {
  {
    const at::AutoDispatchBelowADInplaceOrView below;
    inplace_op().call(x, min, max, grid, symmetric, channel_axis);
  }
  torch::autograd::impl::bump_version(x);
}

TORCH_LIBRARY_IMPL(aimetpp, Autograd, m) {
  m.impl("fake_quantize",
         &forward_autograd<QuantMode::fake_quantize, FakeQuantize>);
  m.impl("fake_quantize_", &inplace_autograd);
  m.impl("quantize", &forward_autograd<QuantMode::quantize, Quantize>);
  m.impl("dequantize", &forward_autograd<QuantMode::dequantize, Dequantize>);
  // No second derivatives: asking for one raises.
  for (const char* name :
       {"fake_quantize_backward", "fake_quantize_backward_",
        "fake_quantize_input_gradient", "fake_quantize_input_gradient_",
        "quantize_backward", "dequantize_backward"}) {
    m.impl(name, torch::autograd::autogradNotImplementedFallback());
  }
}

TORCH_LIBRARY_IMPL(aimetpp, ADInplaceOrView, m) {
  m.impl("fake_quantize_", &inplace_raising_version);
  for (const char* name :
       {"fake_quantize_backward_", "fake_quantize_input_gradient_"}) {
    m.impl(name,
           torch::autograd::autogradNotImplementedInplaceOrViewFallback());
  }
}

}  // namespace

at::Tensor fake_quantize(const at::Tensor& x, const at::Tensor& min,
                         const at::Tensor& max, const at::Tensor& grid,
                         bool symmetric, OptionalAxis channel_axis) {
  return forward_op<QuantMode::fake_quantize>().call(x, min, max, grid,
                                                     symmetric, channel_axis);
}

void fake_quantize_(const at::Tensor& x, const at::Tensor& min,
                    const at::Tensor& max, const at::Tensor& grid,
                    bool symmetric, OptionalAxis channel_axis) {
  inplace_op().call(x, min, max, grid, symmetric, channel_axis);
}

bool can_hand_over(const at::Tensor& x) {
  return has_own_memory(x) && !x.is_leaf() && !x.is_view() &&
         x.storage_offset() == 0 && x.is_non_overlapping_and_dense();
}

at::Tensor hand_over(const at::Tensor& x) { return HandOver::apply(x); }

void replace_value(const at::Tensor& target, const at::Tensor& y) {
  const bool fits = y.strides() == target.strides() &&
                    y.storage_offset() == 0 && y.storage().use_count() == 1;
  ReplaceValue::apply(target, fits ? y : at::empty_like(target).copy_(y));
}

at::Tensor quantize(const at::Tensor& x, const at::Tensor& min,
                    const at::Tensor& max, const at::Tensor& grid,
                    bool symmetric, OptionalAxis channel_axis) {
  return forward_op<QuantMode::quantize>().call(x, min, max, grid, symmetric,
                                                channel_axis);
}

at::Tensor dequantize(const at::Tensor& q, const at::Tensor& min,
                      const at::Tensor& max, const at::Tensor& grid,
                      bool symmetric, OptionalAxis channel_axis) {
  return forward_op<QuantMode::dequantize>().call(q, min, max, grid, symmetric,
                                                  channel_axis);
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> fake_quantize_backward(
    const at::Tensor& grad, const at::Tensor& x, const at::Tensor& min,
    const at::Tensor& max, const at::Tensor& grid, bool symmetric,
    OptionalAxis channel_axis) {
  return backward_op<QuantMode::fake_quantize>().call(grad, x, min, max, grid,
                                                      symmetric, channel_axis);
}

}  // namespace aimetpp::ops
