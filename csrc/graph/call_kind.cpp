// SPDX-License-Identifier: BSD-3-Clause
#include "graph/call_kind.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <string_view>
#include <utility>

#include "graph/op_traits.h"

namespace aimetpp::graph {
namespace {

// Ends of class names under which one known op is often written out in parts.
constexpr std::array<std::pair<std::string_view, std::string_view>, 12>
    kComposites = {{{"rmsnorm", "rms_norm"},
                    {"layernorm", "layer_norm"},
                    {"localresponsenorm", "local_response_norm"},
                    {"frozenbatchnorm2d", "batch_norm"},
                    {"gelu", "gelu"},
                    {"geluactivation", "gelu"},
                    {"hardswish", "hardswish"},
                    {"swish", "silu"},
                    {"mish", "mish"},
                    {"lstmcell", "lstm_cell"},
                    {"grucell", "gru_cell"},
                    {"rnncell", "rnn_cell"}}};

std::string composite_kind(const std::string& class_name) {
  std::string name = class_name;
  std::ranges::transform(name, name.begin(), [](unsigned char c) {
    return static_cast<char>(std::tolower(c));
  });
  for (const auto& [ending, kind] : kComposites) {
    if (name.ends_with(ending)) return std::string(kind);
  }
  return is_known_kind(name) ? canonical_kind(name) : class_name;
}

// nn.Linear is an addmm in some releases of PyTorch.
std::string module_kind(const std::string& kind, const std::string& type) {
  return kind == "addmm" && type == "Linear" ? "linear" : kind;
}

bool pools_to_one_element(const FlatIr& ir, const IrNode& node,
                          const std::string& kind) {
  if (node.outputs.empty()) return false;
  const auto& shape = ir.values[node.outputs.front()].shape;
  const std::size_t num_spatial = kind[kind.size() - 2] - '0';
  return shape && shape->size() >= num_spatial &&
         std::all_of(shape->end() - static_cast<std::ptrdiff_t>(num_spatial),
                     shape->end(), [](std::int64_t size) { return size == 1; });
}

// ONNX has one type for pooling to a single element and another for the rest.
std::string onnx_type_of(const FlatIr& ir, const IrNode* node,
                         const std::string& kind) {
  if (kind.starts_with("adaptive_") && kind.ends_with('d') && node != nullptr) {
    const bool is_global = pools_to_one_element(ir, *node, kind);
    const std::string pool =
        kind.starts_with("adaptive_max") ? "MaxPool" : "AveragePool";
    return is_global ? "Global" + pool : pool;
  }
  return op_traits(kind).onnx_type;
}

CallKind make_kind(const FlatIr& ir, const IrNode* node,
                   const std::string& kind) {
  return {kind, onnx_type_of(ir, node, kind), op_traits(kind).role};
}

struct NodesByRole {
  std::vector<const IrNode*> compute;
  std::vector<const IrNode*> moving;
  std::vector<const IrNode*> metadata;
};

// Integer arithmetic, such as the size of a padding, does not count.
NodesByRole sort_by_role(const FlatIr& ir, const std::vector<int>& nodes) {
  NodesByRole by_role;
  for (const int index : nodes) {
    const IrNode& node = ir.nodes[index];
    const bool makes_floats = std::ranges::any_of(
        node.outputs, [&](int value) { return ir.values[value].is_floating; });
    const OpRole role = kind_of_node(ir, node).role;
    if (role == OpRole::metadata) {
      if (!makes_floats) by_role.metadata.push_back(&node);
    } else if (makes_floats) {
      (role == OpRole::compute ? by_role.compute : by_role.moving)
          .push_back(&node);
    }
  }
  return by_role;
}

CallKind kind_of_module(const FlatIr& ir, const Call& call,
                        const NodesByRole& nodes) {
  if (nodes.compute.size() > 1) {
    CallKind result = make_kind(ir, nullptr, composite_kind(call.type));
    result.role = OpRole::compute;
    return result;
  }
  for (const auto* list : {&nodes.compute, &nodes.moving, &nodes.metadata}) {
    if (list->empty()) continue;
    const IrNode* node = list->front();
    return make_kind(ir, node, module_kind(node_kind(ir, *node), call.type));
  }
  return make_kind(ir, nullptr, "identity");
}

}  // namespace

CallKind kind_of_node(const FlatIr& ir, const IrNode& node) {
  return make_kind(ir, &node, node_kind(ir, node));
}

CallKind kind_of_call(const FlatIr& ir, const Call& call,
                      const std::vector<int>& nodes) {
  const NodesByRole by_role = sort_by_role(ir, nodes);
  if (!call.functional) return kind_of_module(ir, call, by_role);
  const std::string kind = canonical_kind(call.type);
  const bool moves = by_role.compute.empty() && !by_role.moving.empty();
  const IrNode* only = moves ? by_role.moving.front() : nullptr;
  if (by_role.compute.size() == 1) only = by_role.compute.front();
  // What these do is seen from what ran: interpolation to the nearest element
  // moves data, any other computes.
  const bool varies = kind == "convolution" || kind == "where" ||
                      kind == "interpolate" || kind == "upsample";
  if (only != nullptr && (!is_known_kind(kind) || varies)) {
    return make_kind(ir, only, node_kind(ir, *only));
  }
  return make_kind(ir, only, kind);
}

}  // namespace aimetpp::graph
