// SPDX-License-Identifier: BSD-3-Clause
#include "mixed/kernel_check.h"

#include <algorithm>

#include "config/params.h"
#include "core/error.h"
#include "core/text.h"
#include "mixed/quantizer_route.h"

namespace aimetpp::mixed {
namespace {

using graph::kNone;

// What a kernel is looked up by; kNone: not quantized.
struct Operands {
  int activation = kNone;  // quantizers
  int weight = kNone;
  int param = kNone;  // index of the weight in Op::params
};

Operands operands_of(const graph::OpGraph& graph,
                     const config::Placement& placement, int index) {
  const graph::Op& op = graph.ops[index];
  Operands operands;
  operands.param = config::weight_of(graph, op);
  if (operands.param != kNone) {
    operands.weight = placement.quantizer_at(op.params[operands.param].site);
    operands.activation =
        config::quantizer_of_input(graph, placement, index, 0);
  } else if (!op.outputs.empty()) {
    const std::vector<int> found =
        route_of_output(graph, placement, index, 0).quantizers;
    if (!found.empty()) operands.activation = found.front();
  }
  return operands;
}

}  // namespace

std::vector<UnsupportedOp> find_unsupported_ops(
    const graph::OpGraph& graph, const config::Placement& placement,
    const std::vector<Precision>& precisions) {
  if (precisions.size() != placement.quantizers.size()) {
    raise_value_error("precisions must hold ", placement.quantizers.size(),
                      " entries, one per quantizer, got ", precisions.size());
  }
  std::vector<UnsupportedOp> found;
  for (int op = 0; op < static_cast<int>(graph.ops.size()); ++op) {
    const auto& kernels = placement.kernels_of_op[op];
    if (kernels.empty()) continue;
    const Operands operands = operands_of(graph, placement, op);
    const auto fits = [&](const config::SupportedKernel& kernel) {
      return (operands.activation == kNone ||
              kernel.activation == precisions[operands.activation]) &&
             (operands.weight == kNone || !kernel.param ||
              *kernel.param == precisions[operands.weight]);
    };
    if (std::ranges::any_of(kernels, fits)) continue;
    UnsupportedOp unsupported;
    unsupported.op = op;
    std::string state;
    if (operands.activation != kNone) {
      unsupported.quantizers.push_back(operands.activation);
      state = precisions[operands.activation].name() +
              (operands.param == kNone ? " output" : " input");
    }
    if (operands.weight != kNone) {
      unsupported.quantizers.push_back(operands.weight);
      state += (state.empty() ? "" : " with ") +
               precisions[operands.weight].name() + " " +
               graph.ops[op].params[operands.param].name;
    }
    unsupported.problem =
        concat("no supported kernel for ", state,
               "; supported: ", join(kernels, &config::SupportedKernel::name));
    found.push_back(std::move(unsupported));
  }
  return found;
}

}  // namespace aimetpp::mixed
