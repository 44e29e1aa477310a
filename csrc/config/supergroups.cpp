// SPDX-License-Identifier: BSD-3-Clause
#include "config/supergroups.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <string_view>

namespace aimetpp::config {
namespace {

using graph::kNone;
using graph::Op;
using graph::OpGraph;
using graph::OpRole;

bool is_no_op(const Op& op) {
  return op.onnx_type == "Identity" || op.onnx_type == "Dropout";
}

// The op that alone reads the result of `op`; kNone where there is none or
// several, where the result leaves the model, or where `op` has several
// results. Reading a tensor's size does not count.
int sole_reader(const OpGraph& graph, int op) {
  if (graph.ops[op].outputs.size() != 1) {
    return kNone;
  }
  const graph::Tensor& tensor = graph.tensors[graph.ops[op].outputs.front()];
  if (tensor.is_model_output) {
    return kNone;
  }
  int reader = kNone;
  for (const graph::Use& use : tensor.uses) {
    if (graph.ops[use.op].role == OpRole::metadata) {
      continue;
    }
    if (reader != kNone) {
      return kNone;
    }
    reader = use.op;
  }
  return reader;
}

// Appends to `chain` the sole reader of its last op, and those after it as long
// as `step_over` accepts them; returns the one that it does not accept (also
// appended), or kNone where the chain ends.
template <typename StepOver>
int extend(const OpGraph& graph, std::vector<int>& chain,
           const StepOver& step_over) {
  while (true) {
    const int next = sole_reader(graph, chain.back());
    if (next == kNone || graph.ops[next].call == kNone) {
      return kNone;
    }
    chain.push_back(next);
    if (!step_over(next)) {
      return next;
    }
  }
}

// A convolution has its channels on axis 1, as batch norm wants them; a linear
// layer has them on the last axis, which is axis 1 for rank 2 only.
bool normalizes_channels_of(const OpGraph& graph, const Op& op) {
  if (op.onnx_type != "Gemm") {
    return true;
  }
  const auto& shape = graph.tensors[op.outputs.front()].shape;
  return shape.empty() || shape.size() == 2;
}

// Calls of one module share their identity; a functional op stands for itself.
std::string identity(const OpGraph& graph, int op) {
  const graph::Call& call = graph.calls[graph.ops[op].call];
  return call.functional ? "#" + std::to_string(op) : call.module;
}

bool has_call_of(const Op& op, std::string_view onnx_type) {
  return op.call != kNone && op.onnx_type == onnx_type;
}

}  // namespace

std::vector<std::pair<int, int>> foldable_batch_norms(const OpGraph& graph) {
  std::vector<std::pair<int, int>> pairs;
  std::map<std::string, int> num_calls;
  std::map<std::pair<std::string, std::string>, int> num_pairs;
  const auto key_of = [&](const std::pair<int, int>& pair) {
    return std::pair(identity(graph, pair.first), identity(graph, pair.second));
  };
  for (int index = 0; index < static_cast<int>(graph.ops.size()); ++index) {
    const Op& op = graph.ops[index];
    if (op.call == kNone) {
      continue;
    }
    ++num_calls[identity(graph, index)];
    const bool has_foldable_weight = op.onnx_type == "Conv" ||
                                     op.onnx_type == "ConvTranspose" ||
                                     op.onnx_type == "Gemm";
    if (!has_foldable_weight || !normalizes_channels_of(graph, op)) {
      continue;
    }
    std::vector<int> chain = {index};
    const int reader = extend(
        graph, chain, [&](int next) { return is_no_op(graph.ops[next]); });
    if (reader != kNone &&
        has_call_of(graph.ops[reader], "BatchNormalization")) {
      pairs.emplace_back(index, reader);
      ++num_pairs[key_of(pairs.back())];
    }
  }
  std::erase_if(pairs, [&](const std::pair<int, int>& pair) {
    const auto key = key_of(pair);
    const int count = num_pairs[key];
    return num_calls[key.first] != count || num_calls[key.second] != count;
  });
  return pairs;
}

std::vector<Supergroup> match_supergroups(
    const OpGraph& graph,
    const std::vector<std::vector<std::string>>& patterns) {
  const int num_ops = static_cast<int>(graph.ops.size());
  std::vector<bool> folds(num_ops, false);
  for (const auto& [op, batch_norm] : foldable_batch_norms(graph)) {
    folds[batch_norm] = true;
  }

  std::vector<int> by_length(patterns.size());
  std::iota(by_length.begin(), by_length.end(), 0);
  std::ranges::stable_sort(by_length, std::ranges::greater{},
                           [&](int i) { return patterns[i].size(); });

  std::vector<Supergroup> found;
  std::vector<bool> taken(num_ops, false);
  for (const int index : by_length) {
    const std::vector<std::string>& pattern = patterns[index];
    const auto step_over = [&](int op) {
      return (folds[op] || is_no_op(graph.ops[op])) &&
             std::ranges::find(pattern, graph.ops[op].onnx_type) ==
                 pattern.end();
    };
    for (int first = 0; first < num_ops; ++first) {
      if (pattern.empty() || !has_call_of(graph.ops[first], pattern.front())) {
        continue;
      }
      Supergroup group{index, {first}};
      bool matches = true;
      for (std::size_t i = 1; i < pattern.size() && matches; ++i) {
        const int next = extend(graph, group.ops, step_over);
        matches = next != kNone && has_call_of(graph.ops[next], pattern[i]);
      }
      matches = matches && std::ranges::none_of(
                               group.ops, [&](int op) { return taken[op]; });
      if (matches) {
        for (const int op : group.ops) {
          taken[op] = true;
        }
        found.push_back(std::move(group));
      }
    }
  }
  std::ranges::stable_sort(found, {},
                           [](const Supergroup& g) { return g.ops.front(); });
  return found;
}

}  // namespace aimetpp::config
