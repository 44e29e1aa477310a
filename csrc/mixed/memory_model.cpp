// SPDX-License-Identifier: BSD-3-Clause
#include "mixed/memory_model.h"

#include <set>

#include "core/error.h"

namespace aimetpp::mixed {
namespace {

using graph::kNone;
using graph::Op;
using graph::OpGraph;
using graph::OpRole;

double bytes_of(const std::vector<MemoryTerm>& terms,
                const std::vector<Precision>& precisions) {
  double bits = 0;
  for (const MemoryTerm& term : terms) {
    if (term.quantizer >= static_cast<int>(precisions.size())) {
      raise_value_error("memory model: one precision for each quantizer is ",
                        "required; quantizer ", term.quantizer,
                        " is used, got ", precisions.size(), " precisions");
    }
    const int width = term.quantizer == kNone
                          ? Precision::fp32().bitwidth()
                          : precisions[term.quantizer].bitwidth();
    bits += static_cast<double>(term.elements) * width;
  }
  return bits / 8;
}

}  // namespace

double MemoryModel::weight_bytes(
    const std::vector<Precision>& precisions) const {
  return bytes_of(weights, precisions);
}

double MemoryModel::activation_bytes(
    const std::vector<Precision>& precisions) const {
  return bytes_of(activations, precisions);
}

MemoryModel build_memory_model(const OpGraph& graph,
                               const config::Placement& placement) {
  MemoryModel model;
  std::set<int> counted;  // parameters
  const auto elements_of = [&](int tensor) {
    return graph::num_elements(graph.tensors[tensor].shape) / graph.batch;
  };
  for (int index = 0; index < static_cast<int>(graph.ops.size()); ++index) {
    const Op& op = graph.ops[index];
    for (const graph::Param& param : op.params) {
      const bool known = param.parameter != kNone;
      if (known && !counted.insert(param.parameter).second) continue;
      model.weights.push_back({graph::num_elements(param.shape),
                               placement.quantizer_at(param.site)});
    }
    if (op.role == OpRole::compute) {
      for (int slot = 0; slot < static_cast<int>(op.inputs.size()); ++slot) {
        const int quantizer =
            config::quantizer_of_input(graph, placement, index, slot);
        if (quantizer == kNone) continue;
        model.activations.push_back(
            {elements_of(op.inputs[static_cast<std::size_t>(slot)]),
             quantizer});
      }
    }
    for (std::size_t slot = 0; slot < op.outputs.size(); ++slot) {
      const int quantizer = placement.quantizer_at(op.output_sites[slot]);
      if (quantizer == kNone) continue;
      model.activations.push_back({elements_of(op.outputs[slot]), quantizer});
    }
  }
  return model;
}

}  // namespace aimetpp::mixed
