// SPDX-License-Identifier: BSD-3-Clause
// fake_quantize with the extremes of x in the same read of it, for ranges that
// follow a moving average: schema and the CPU, Meta and Autograd kernels.
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <algorithm>
#include <limits>
#include <tuple>

#include "ops/fake_quant.h"
#include "ops/fake_quant_call.h"
#include "ops/find_op.h"
#include "ops/parallel.h"
#include "ops/slabs.h"

namespace aimetpp::ops {

at::Tensor empty_extreme(const at::Tensor& x) {
  return at::empty({}, x.options().dtype(at::kFloat));
}

namespace {

constexpr QuantMode kMode = QuantMode::fake_quantize;
using Observed = std::tuple<at::Tensor, at::Tensor, at::Tensor>;
using Forward = Observed(const at::Tensor&, const at::Tensor&,
                         const at::Tensor&, const at::Tensor&, bool);
using InputGradient = at::Tensor(const at::Tensor&, const at::Tensor&,
                                 const at::Tensor&, const at::Tensor&,
                                 const at::Tensor&, bool,
                                 std::optional<std::int64_t>);

const auto& forward_op() {
  static const auto op = find_op<Forward>("fake_quantize_observed");
  return op;
}

const auto& input_gradient_op() {
  static const auto op = find_op<InputGradient>("fake_quantize_input_gradient");
  return op;
}

// The extremes of the parts that have been quantized.
struct Ends {
  float least = std::numeric_limits<float>::infinity();
  float largest = -std::numeric_limits<float>::infinity();

  void include(const kernels::QuantCall& call, const void* x,
               const at::Tensor& y) {
    float low = 0;
    float high = 0;
    kernels::cpu::transform_observed(call, x, y.mutable_data_ptr(), &low, &high,
                                     at_parallel_for);
    least = std::min(least, low);
    largest = std::max(largest, high);
  }
};

Observed observed_cpu(const at::Tensor& x, const at::Tensor& min,
                      const at::Tensor& max, const at::Tensor& grid,
                      bool symmetric) {
  const QuantArguments arguments{x, min, max, grid, symmetric, std::nullopt};
  const at::Tensor y = empty_result(x);
  const PreparedCall prepared = prepare(kMode, arguments, y);
  check_grid_values(kMode, prepared.grid);
  Ends ends;
  if (x.is_non_overlapping_and_dense()) {
    ends.include(prepared.call, x.const_data_ptr(), y);
  } else {
    for (const Slab& slab : slabs_of(y.sizes(), y.strides(), std::nullopt)) {
      const at::Tensor part = view_of(y, slab);
      part.copy_(view_of(x, slab));
      ends.include(call_of(prepared.call, slab), part.const_data_ptr(), part);
    }
  }
  const at::Tensor least = empty_extreme(x);
  const at::Tensor largest = empty_extreme(x);
  *least.mutable_data_ptr<float>() = ends.least;
  *largest.mutable_data_ptr<float>() = ends.largest;
  return {y, least, largest};
}

Observed observed_meta(const at::Tensor& x, const at::Tensor& min,
                       const at::Tensor& max, const at::Tensor& grid,
                       bool symmetric) {
  check_arguments(kMode, {x, min, max, grid, symmetric, std::nullopt});
  return {at::empty_like(x), empty_extreme(x), empty_extreme(x)};
}

class FakeQuantizeObserved
    : public torch::autograd::Function<FakeQuantizeObserved> {
 public:
  static torch::autograd::variable_list forward(
      torch::autograd::AutogradContext* context, const at::Tensor& x,
      const at::Tensor& min, const at::Tensor& max, const at::Tensor& grid,
      bool symmetric) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    context->save_for_backward({x, min, max, grid});
    context->saved_data["symmetric"] = symmetric;
    auto [y, least, largest] = forward_op().call(x, min, max, grid, symmetric);
    context->mark_non_differentiable({least, largest});
    return {y, least, largest};
  }

  static torch::autograd::variable_list backward(
      torch::autograd::AutogradContext* context,
      const torch::autograd::variable_list& grads) {
    const auto saved = context->get_saved_variables();
    return {input_gradient_op().call(
                grads[0], saved[0], saved[1], saved[2], saved[3],
                context->saved_data["symmetric"].toBool(), std::nullopt),
            {},
            {},
            {},
            {}};
  }
};

Observed observed_autograd(const at::Tensor& x, const at::Tensor& min,
                           const at::Tensor& max, const at::Tensor& grid,
                           bool symmetric) {
  TORCH_CHECK_VALUE(!min.requires_grad() && !max.requires_grad(),
                    "fake_quantize_observed: min and max have no gradient, but "
                    "one requires it");
  const auto results =
      FakeQuantizeObserved::apply(x, min, max, grid, symmetric);
  return {results[0], results[1], results[2]};
}

TORCH_LIBRARY_FRAGMENT(aimetpp, m) {
  m.def(
      "fake_quantize_observed(Tensor x, Tensor min, Tensor max, Tensor grid, "
      "bool symmetric) -> (Tensor, Tensor, Tensor)",
      {at::Tag::pt2_compliant_tag});
}

TORCH_LIBRARY_IMPL(aimetpp, CPU, m) {
  m.impl("fake_quantize_observed", &observed_cpu);
}

TORCH_LIBRARY_IMPL(aimetpp, Meta, m) {
  m.impl("fake_quantize_observed", &observed_meta);
}

TORCH_LIBRARY_IMPL(aimetpp, Autograd, m) {
  m.impl("fake_quantize_observed", &observed_autograd);
}

}  // namespace
}  // namespace aimetpp::ops
