// SPDX-License-Identifier: BSD-3-Clause
#include "fold/op_chain.h"

#include <algorithm>
#include <map>

namespace aimetpp::fold {

using graph::kNone;
using graph::Op;
using graph::OpGraph;
using graph::OpRole;
using graph::Param;

namespace {

// Its size, say, or its type: `y.reshape_as(x)`.
bool reads_no_values(const Op& op, int slot) {
  return op.role == OpRole::metadata ||
         (slot > 0 && (op.kind.ends_with("_as") || op.kind == "to"));
}

}  // namespace

bool is_no_op(const Op& op) {
  return op.onnx_type == "Identity" || op.onnx_type == "Dropout";
}

bool is_relu6(const OpGraph& graph, const Op& op) {
  return op.kind == "relu6" ||
         (op.call != kNone && graph.calls[op.call].type == "ReLU6");
}

Activation activation_of(const OpGraph& graph, const Op& op) {
  if (op.kind == "relu") return Activation::relu;
  return is_relu6(graph, op) ? Activation::relu6 : Activation::none;
}

Activation following_activation(const OpGraph& graph, int op) {
  std::vector<int> chain = {op};
  const int reader =
      extend(graph, chain, [&](int next) { return is_no_op(graph.ops[next]); });
  return reader == kNone ? Activation::none
                         : activation_of(graph, graph.ops[reader]);
}

const Param* weight_of(const Op& op) {
  const auto found = std::ranges::find_if(
      op.params, [](const Param& param) { return param.shape.size() > 1; });
  return found == op.params.end() ? nullptr : &*found;
}

int sole_reader(const OpGraph& graph, int op) {
  if (graph.ops[op].outputs.size() != 1) return kNone;
  const graph::Tensor& tensor = graph.tensors[graph.ops[op].outputs.front()];
  if (tensor.is_model_output) return kNone;
  int reader = kNone;
  for (const graph::Use& use : tensor.uses) {
    if (reads_no_values(graph.ops[use.op], use.slot)) continue;
    if (reader != kNone) return kNone;
    reader = use.op;
  }
  return reader;
}

std::string identity(const OpGraph& graph, int op) {
  const graph::Call& call = graph.calls[graph.ops[op].call];
  return call.functional ? "#" + std::to_string(op) : call.module;
}

bool owns_parameters(const OpGraph& graph, int op) {
  const std::string owner = identity(graph, op);
  const auto is_own = [&](int parameter) {
    return std::ranges::find(graph.ops[op].params, parameter,
                             &Param::parameter) != graph.ops[op].params.end();
  };
  for (int other = 0; other < static_cast<int>(graph.ops.size()); ++other) {
    if (graph.ops[other].call == kNone || identity(graph, other) == owner) {
      continue;
    }
    for (const Param& param : graph.ops[other].params) {
      if (is_own(param.parameter)) return false;
    }
  }
  // Read outside any call's parameters: `self.conv.weight.t()`.
  return std::ranges::none_of(graph.tensors, [&](const graph::Tensor& tensor) {
    return tensor.parameter != kNone && is_own(tensor.parameter);
  });
}

void keep_consistent(const OpGraph& graph,
                     std::vector<std::pair<int, int>>& pairs) {
  std::map<std::string, int> num_calls;
  for (int op = 0; op < static_cast<int>(graph.ops.size()); ++op) {
    if (graph.ops[op].call != kNone) ++num_calls[identity(graph, op)];
  }
  const auto key_of = [&](const std::pair<int, int>& pair) {
    return std::pair(identity(graph, pair.first), identity(graph, pair.second));
  };
  std::map<std::pair<std::string, std::string>, int> num_pairs;
  for (const auto& pair : pairs) ++num_pairs[key_of(pair)];
  std::erase_if(pairs, [&](const std::pair<int, int>& pair) {
    const auto key = key_of(pair);
    const int count = num_pairs[key];
    return num_calls[key.first] != count || num_calls[key.second] != count;
  });
}

}  // namespace aimetpp::fold
