// SPDX-License-Identifier: BSD-3-Clause
#include "graph/flat_ir.h"

#include <algorithm>
#include <array>
#include <set>

#include "graph/op_traits.h"

namespace aimetpp::graph {
namespace {

constexpr std::array<std::string_view, 25> kViews = {
    "view",     "view_as", "reshape", "reshape_as", "flatten",
    "t",        "permute", "squeeze", "transpose",  "unflatten",
    "movedim",  "detach",  "expand",  "unsqueeze",  "expand_as",
    "alias",    "narrow",  "select",  "numpy_T",    "as_strided",
    "diagonal", "chunk",   "split",   "unbind",     "split_with_sizes"};

bool is_view(std::string_view kind) {
  return kind == "slice" || std::ranges::find(kViews, kind) != kViews.end();
}

// Of a node with the arguments of aten::_convolution or aten::convolution.
std::string convolution_kind(const FlatIr& ir, const IrNode& node) {
  if (node.args.size() < 2 || node.args[1].tensors.empty()) return "";
  const auto& weight = ir.values[node.args[1].tensors.front()].shape;
  if (!weight || weight->size() < 3) return "";
  constexpr std::size_t kTransposedArg = 6;
  const bool has_flag = !node.kind.ends_with("_mode");
  const bool transposed = has_flag && node.args.size() > kTransposedArg &&
                          node.args[kTransposedArg].number.value_or(0) != 0;
  return (transposed ? "conv_transpose" : "conv") +
         std::to_string(weight->size() - 2) + "d";
}

bool is_number(const FlatIr& ir, const IrArg& arg) {
  if (arg.tensors.empty()) return true;
  const auto& shape = ir.values[arg.tensors.front()].shape;
  return shape && shape->empty();
}

}  // namespace

std::string at_source(const std::string& source) {
  return source.empty() ? "" : " (" + source + ")";
}

std::vector<int> read_values(const IrNode& node) {
  std::vector<int> values;
  for (const IrArg& arg : node.args) {
    values.insert(values.end(), arg.tensors.begin(), arg.tensors.end());
  }
  return values;
}

std::string node_kind(const FlatIr& ir, const IrNode& node) {
  std::string kind = canonical_kind(node.kind);
  if (kind == "convolution") {
    const std::string specific = convolution_kind(ir, node);
    return specific.empty() ? kind : specific;
  }
  const bool of_two = node.args.size() == 2 && !node.args[1].tensors.empty();
  if (of_two && (kind == "max" || kind == "min")) return kind + "imum";
  const bool fills = kind == "where" && node.args.size() == 3 &&
                     is_number(ir, node.args[1]) != is_number(ir, node.args[2]);
  return fills ? "masked_fill" : kind;
}

bool is_creation(const FlatIr& ir, const IrNode& node) {
  return op_traits(node.kind).role == OpRole::metadata &&
         std::ranges::any_of(node.outputs,
                             [&](int v) { return ir.values[v].is_floating; });
}

bool writes_in_place(const IrNode& node) {
  return node.kind.ends_with("_") && !node.kind.ends_with("__");
}

ValueFacts collect_facts(const FlatIr& ir, int num_inputs) {
  ValueFacts facts;
  facts.varies.resize(ir.values.size(), false);
  facts.viewed.resize(ir.values.size(), kNone);
  facts.last_use.resize(ir.values.size(), kNone);
  for (int i = 0; i < num_inputs; ++i) facts.varies[ir.inputs[i]] = true;
  for (int n = 0; n < static_cast<int>(ir.nodes.size()); ++n) {
    const IrNode& node = ir.nodes[n];
    const std::vector<int> reads = read_values(node);
    for (const int value : reads) facts.last_use[value] = n;
    const bool varies =
        !is_creation(ir, node) &&
        std::ranges::any_of(reads, [&](int v) { return facts.varies[v]; });
    const bool views = is_view(canonical_kind(node.kind)) && !reads.empty();
    for (const int value : node.outputs) {
      facts.varies[value] = varies;
      if (views) facts.viewed[value] = reads.front();
    }
    // What is written into a view is in the viewed tensor, too.
    if (varies && writes_in_place(node) && !reads.empty()) {
      for (int v = reads.front(); v != kNone; v = facts.viewed[v]) {
        facts.varies[v] = true;
      }
    }
  }
  for (const int value : ir.outputs) {
    facts.last_use[value] = static_cast<int>(ir.nodes.size());
  }
  return facts;
}

std::vector<int> telling_nodes(const FlatIr& ir, const ValueFacts& facts,
                               const std::vector<int>& nodes) {
  std::vector<int> telling;
  std::set<int> values;  // made by those
  const auto tells = [&](int value) {
    const int producer = ir.values[value].producer;
    return facts.varies[value] || values.contains(value) ||
           (producer != kNone && ir.nodes[producer].is_marker());
  };
  for (const int n : nodes) {
    const IrNode& node = ir.nodes[n];
    if (!std::ranges::any_of(read_values(node), tells)) continue;
    telling.push_back(n);
    values.insert(node.outputs.begin(), node.outputs.end());
  }
  return telling.empty() ? nodes : telling;
}

bool computes_constant(const FlatIr& ir, const ValueFacts& facts,
                       const IrNode& node) {
  return op_traits(node_kind(ir, node)).role == OpRole::compute &&
         !writes_in_place(node) &&
         std::ranges::none_of(node.outputs,
                              [&](int v) { return facts.varies[v]; });
}

}  // namespace aimetpp::graph
