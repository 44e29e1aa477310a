// SPDX-License-Identifier: BSD-3-Clause
#include "config/integer_biases.h"

#include <string_view>

#include "config/rule_sheet.h"

namespace aimetpp::config {
namespace {

using graph::kNone;
using graph::Op;
using graph::OpGraph;

bool adds_bias_to_products(const Op& op) {
  const std::string_view kind = op.kind;
  return kind == "linear" || kind == "conv1d" || kind == "conv2d" ||
         kind == "conv3d" || kind.starts_with("conv_transpose");
}

// By what constants the values of the first input were multiplied since they
// met their quantizer.
double factor_of_input(const OpGraph& graph, const Placement& placement,
                       const Op& op) {
  double factor = 1.0;
  const auto is_on = [&](int site) {
    return placement.quantizer_at(site) != kNone;
  };
  if (is_on(op.input_sites.front())) return factor;
  const auto passes = [&](int walked) {
    if (!placement.keeps_precision(graph, walked)) return false;
    if (placement.rescales.contains(walked)) {
      factor *= *graph.ops[walked].rescale;
    }
    return true;
  };
  find_value_origin(graph, op.inputs.front(), is_on, passes);
  return factor;
}

}  // namespace

std::vector<IntegerBias> integer_biases(const OpGraph& graph,
                                        const Placement& placement) {
  std::vector<IntegerBias> found;
  for (int index = 0; index < static_cast<int>(graph.ops.size()); ++index) {
    const Op& op = graph.ops[index];
    if (!adds_bias_to_products(op) || op.inputs.empty()) continue;
    IntegerBias bias{.op = index,
                     .input = quantizer_of_input(graph, placement, index, 0)};
    for (const graph::Param& param : op.params) {
      const int quantizer = placement.quantizer_at(param.site);
      if (param.shape.size() > 1) {
        bias.weight = quantizer;
      } else if (quantizer == kNone) {
        bias.site = param.site;
      }
    }
    if (bias.site != kNone && bias.input != kNone && bias.weight != kNone) {
      bias.factor = factor_of_input(graph, placement, op);
      found.push_back(bias);
    }
  }
  return found;
}

}  // namespace aimetpp::config
