// SPDX-License-Identifier: BSD-3-Clause
#include <ATen/ops/alias.h>
#include <torch/library.h>

#include "ops/fake_quant.h"
#include "ops/find_op.h"

namespace aimetpp::ops {
namespace {

// A view and not a copy, so that a model with markers keeps its meaning where
// it writes in place; and a tensor of its own, because the tracer knows values
// by tensor: other uses of x must stay uses of x. Composite: autograd and
// functionalization see a plain aten::alias, the tracer sees this op.
at::Tensor alias_as_site(const at::Tensor& x, std::int64_t /*id*/) {
  return at::alias(x);
}

TORCH_LIBRARY_IMPL(aimetpp, CompositeImplicitAutograd, m) {
  m.impl("site", &alias_as_site);
  m.impl("constant_site", &alias_as_site);
}

}  // namespace

at::Tensor site(const at::Tensor& x, std::int64_t id) {
  static const auto op =
      find_op<at::Tensor(const at::Tensor&, std::int64_t)>("site");
  return op.call(x, id);
}

}  // namespace aimetpp::ops
