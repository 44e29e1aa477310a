// SPDX-License-Identifier: BSD-3-Clause
#include "config/params.h"

#include <algorithm>
#include <array>
#include <string>

namespace aimetpp::config {

using graph::kNone;
using graph::Op;
using graph::OpGraph;

namespace {

// Products of two matrices, and the position of the left one among the
// arguments: behind the summand of addmm and its kin.
int left_operand(const std::string& kind) {
  if (kind == "matmul" || kind == "mm" || kind == "bmm") {
    return 0;
  }
  return kind == "addmm" || kind == "baddbmm" || kind == "addbmm" ? 1 : kNone;
}

// Ops whose operands are all alike.
bool is_element_wise(const Op& op) {
  constexpr std::array<std::string_view, 12> kTypes = {
      "Add", "Sub", "Mul",    "Div",   "Pow",       "Mod",
      "Max", "Min", "Concat", "Where", "ScatterND", "ScatterElements"};
  return std::ranges::find(kTypes, op.onnx_type) != kTypes.end();
}

}  // namespace

bool is_bias(std::string_view param) {
  return param.find("bias") != std::string_view::npos;
}

int channel_axis_of(const OpGraph& graph, const Op& op,
                    const graph::Param& param) {
  const int rank = static_cast<int>(param.shape.size());
  if (is_bias(param.name) || rank == 0) {
    return kNone;
  }
  if (rank == 1) {
    const bool slopes = op.onnx_type == "PRelu" && param.shape.front() > 1;
    return slopes ? 0 : kNone;
  }
  if (param.channel_axis != kNone) {
    return param.channel_axis;
  }
  if (const int left = left_operand(op.kind); left != kNone) {
    const bool is_functional =
        op.call != kNone && graph.calls[op.call].functional;
    const bool is_left = is_functional && graph.sites[param.site].slot == left;
    return is_left ? rank - 2 : rank - 1;
  }
  return op.onnx_type == "ConvTranspose" ? 1 : 0;
}

int weight_of(const OpGraph& graph, const Op& op) {
  const bool is_functional =
      op.call != kNone && graph.calls[op.call].functional;
  if (is_functional && is_element_wise(op)) {
    return kNone;
  }
  int found = kNone;
  for (int index = 0; index < static_cast<int>(op.params.size()); ++index) {
    const std::string& name = op.params[index].name;
    if (name == "weight") {
      return index;
    }
    // "weight_ih_l0", "in_proj_weight"; of a functional product any name.
    const bool is_weight = name.find("weight") != std::string::npos ||
                           (op.macs > 0 && !is_bias(name));
    if (found == kNone && is_weight) {
      found = index;
    }
  }
  return found;
}

}  // namespace aimetpp::config
