// SPDX-License-Identifier: BSD-3-Clause
#include "graph/rescale.h"

#include <cmath>

#include "graph/op_traits.h"

namespace aimetpp::graph {
namespace {

// The number that an argument is; nullopt where it is none, or may vary.
std::optional<double> constant_number(const FlatIr& ir, const IrArg& arg) {
  if (arg.tensors.size() != 1) return std::nullopt;
  int value = arg.tensors.front();
  while (ir.values[value].producer != kNone &&
         ir.nodes[ir.values[value].producer].is_marker()) {
    value = ir.nodes[ir.values[value].producer].args[0].tensors.front();
  }
  return ir.values[value].number;
}

bool is_scalar(const FlatIr& ir, const IrArg& arg) {
  if (arg.tensors.size() != 1) return false;
  const auto& shape = ir.values[arg.tensors.front()].shape;
  return shape && shape->empty();
}

bool makes_values(const FlatIr& ir, const IrNode& node) {
  for (const int value : node.outputs) {
    if (ir.values[value].is_floating) return true;
  }
  return false;
}

}  // namespace

std::optional<double> constant_rescale(const FlatIr& ir,
                                       const std::vector<int>& nodes) {
  const IrNode* only = nullptr;
  for (const int index : nodes) {
    if (!makes_values(ir, ir.nodes[index])) continue;
    if (only != nullptr) return std::nullopt;
    only = &ir.nodes[index];
  }
  // A third argument is a rounding mode.
  if (only == nullptr || only->args.size() != 2) return std::nullopt;
  const std::string kind = canonical_kind(only->kind);
  if (kind != "mul" && kind != "div") return std::nullopt;
  // `scale * x` too, where the scale is no site.
  const bool scale_first = kind == "mul" && is_scalar(ir, only->args[0]) &&
                           !constant_number(ir, only->args[1]);
  const std::size_t scale = scale_first ? 0 : 1;
  if (constant_number(ir, only->args[1 - scale])) return std::nullopt;
  const std::optional<double> number = constant_number(ir, only->args[scale]);
  if (!number) return std::nullopt;
  const double factor = kind == "mul" ? *number : 1.0 / *number;
  return std::isfinite(factor) && factor > 0.0 ? std::optional(factor)
                                               : std::nullopt;
}

}  // namespace aimetpp::graph
