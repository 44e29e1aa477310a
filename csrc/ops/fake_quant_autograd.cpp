// SPDX-License-Identifier: BSD-3-Clause
// The Autograd and ADInplaceOrView kernels of the ops, and the ops as C++
// functions.
#include <ATen/FuncTorchTLS.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty_like.h>
#include <c10/core/impl/TorchDispatchModeTLS.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/saved_variable.h>
#include <torch/library.h>

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <type_traits>

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
using Into = void(const at::Tensor&, const at::Tensor&, const at::Tensor&,
                  const at::Tensor&, const at::Tensor&, bool, OptionalAxis);
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

const auto& into_op() {
  static const auto op = find_op<Into>("fake_quantize_into");
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

// The history of a result. A node of its own: custom_function.h's keeps what it
// is given in a dictionary, and takes 2 us longer for a forward and a backward.
template <QuantMode mode>
class QuantNode : public torch::autograd::Node {
 public:
  QuantNode(const at::Tensor& x, const at::Tensor& min, const at::Tensor& max,
            const at::Tensor& grid, bool symmetric, OptionalAxis channel_axis)
      : torch::autograd::Node(torch::autograd::collect_next_edges(x, min, max)),
        x_(x, /*is_output=*/false),
        min_(min, /*is_output=*/false),
        max_(max, /*is_output=*/false),
        grid_(grid, /*is_output=*/false),
        symmetric_(symmetric),
        channel_axis_(channel_axis) {}

  [[nodiscard]] std::string name() const override {
    return "aimetpp::" + std::string(op_name(mode)) + "_backward";
  }

  void release_variables() override {
    const std::scoped_lock lock(mutex_);
    for (torch::autograd::SavedVariable* saved : {&x_, &min_, &max_, &grid_}) {
      saved->reset_data();
    }
  }

  torch::autograd::variable_list apply(
      torch::autograd::variable_list&& grads) override {
    const std::scoped_lock lock(mutex_);
    const at::Tensor& grad = grads[0];
    if (!grad.defined()) return {{}, {}, {}};
    const at::Tensor x = x_.unpack();
    const at::Tensor min = min_.unpack();
    const at::Tensor max = max_.unpack();
    const at::Tensor grid = grid_.unpack();
    // With gradients on, the second derivative is asked for, and has to raise.
    std::optional<at::AutoDispatchBelowADInplaceOrView> below_autograd;
    if (!at::GradMode::is_enabled()) below_autograd.emplace();
    if constexpr (mode == QuantMode::fake_quantize) {
      const bool ours = is_only_ours(grad, x);
      if (!task_should_compute_output(1) && !task_should_compute_output(2)) {
        if (!ours) {
          return {input_gradient_op().call(grad, x, min, max, grid, symmetric_,
                                           channel_axis_),
                  {},
                  {}};
        }
        inplace_input_gradient_op().call(grad, x, min, max, grid, symmetric_,
                                         channel_axis_);
        return {grad, {}, {}};
      }
      if (ours) {
        auto [dmin, dmax] = inplace_backward_op().call(
            grad, x, min, max, grid, symmetric_, channel_axis_);
        return {grad, dmin, dmax};
      }
    }
    auto [dx, dmin, dmax] = backward_op<mode>().call(grad, x, min, max, grid,
                                                     symmetric_, channel_axis_);
    return {dx, dmin, dmax};
  }

 private:
  torch::autograd::SavedVariable x_;
  torch::autograd::SavedVariable min_;
  torch::autograd::SavedVariable max_;
  torch::autograd::SavedVariable grid_;
  bool symmetric_;
  OptionalAxis channel_axis_;
};

// As PyTorch holds its nodes: by a shared_ptr up to 2.12, then by an
// intrusive_ptr.
template <typename Node, typename... Arguments>
auto make_node(const Arguments&... arguments) {
  using Pointer = decltype(torch::autograd::Edge::function);
  if constexpr (std::is_same_v<Pointer,
                               std::shared_ptr<torch::autograd::Node>>) {
    // PyTorch's, which does not recurse through a long history.
    return std::shared_ptr<Node>(new Node(arguments...),
                                 [](auto* node) { deleteNode(node); });
  } else {
    return c10::make_intrusive<Node>(arguments...);
  }
}

// As custom_function.h for histories written in C++.
template <typename... Tensors>
void check_differentiable(const Tensors&... tensors) {
  const auto& functorch = at::functorch::functorchTLSAccessor();
  if (functorch) functorch->checkSupportsCppAutogradFunction();
  TORCH_CHECK(!(tensors._fw_grad(/*level=*/0).defined() || ...),
              "fake quantization has no forward-mode derivative (jvp)");
}

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

bool is_differentiated(const at::Tensor& tensor) {
  // A forward-mode tangent too, which is refused with an error.
  return (at::GradMode::is_enabled() && tensor.requires_grad()) ||
         tensor._fw_grad(/*level=*/0).defined();
}

template <QuantMode mode>
at::Tensor forward_autograd(const at::Tensor& x, const at::Tensor& min,
                            const at::Tensor& max, const at::Tensor& grid,
                            bool symmetric, OptionalAxis channel_axis) {
  const auto forward = [&] {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    return forward_op<mode>().call(x, min, max, grid, symmetric, channel_axis);
  };
  if (!is_differentiated(x) && !is_differentiated(min) &&
      !is_differentiated(max)) {
    return forward();
  }
  check_differentiable(x, min, max);
  const auto node =
      make_node<QuantNode<mode>>(x, min, max, grid, symmetric, channel_axis);
  const at::Tensor y = forward();
  torch::autograd::set_history(y, node);
  return y;
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

void into_autograd(const at::Tensor& y, const at::Tensor& x,
                   const at::Tensor& min, const at::Tensor& max,
                   const at::Tensor& grid, bool symmetric,
                   OptionalAxis channel_axis) {
  TORCH_CHECK(!is_differentiated(y) && !is_differentiated(x) &&
                  !is_differentiated(min) && !is_differentiated(max),
              "fake_quantize: has no gradient where it writes to `out`; leave "
              "`out` away, or use torch.no_grad()");
  const at::AutoDispatchBelowAutograd below_autograd;
  into_op().call(y, x, min, max, grid, symmetric, channel_axis);
}

void into_raising_version(const at::Tensor& y, const at::Tensor& x,
                          const at::Tensor& min, const at::Tensor& max,
                          const at::Tensor& grid, bool symmetric,
                          OptionalAxis channel_axis) {
  {
    const at::AutoDispatchBelowADInplaceOrView below;
    into_op().call(y, x, min, max, grid, symmetric, channel_axis);
  }
  torch::autograd::impl::bump_version(y);
}

TORCH_LIBRARY_IMPL(aimetpp, Autograd, m) {
  m.impl("fake_quantize", &forward_autograd<QuantMode::fake_quantize>);
  m.impl("fake_quantize_", &inplace_autograd);
  m.impl("fake_quantize_into", &into_autograd);
  m.impl("quantize", &forward_autograd<QuantMode::quantize>);
  m.impl("dequantize", &forward_autograd<QuantMode::dequantize>);
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
  m.impl("fake_quantize_into", &into_raising_version);
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
