// SPDX-License-Identifier: BSD-3-Clause
#include "fold/batch_norm_folds.h"

#include <algorithm>
#include <initializer_list>
#include <string_view>

#include "fold/op_chain.h"

namespace aimetpp::fold {
namespace {

using graph::kNone;
using graph::Op;
using graph::OpGraph;

using Pairs = std::vector<std::pair<int, int>>;
using Types = std::initializer_list<std::string_view>;

bool is_call_of(const Op& op, Types onnx_types) {
  return op.call != kNone &&
         std::ranges::find(onnx_types, op.onnx_type) != onnx_types.end();
}

const std::vector<std::int64_t>& shape_of(const OpGraph& graph, int tensor) {
  return graph.tensors[tensor].shape;
}

// A batch norm has its channels on axis 1, as a convolution does; a linear
// layer has them on the last axis, which is axis 1 for rank 2 only.
bool has_channels_on_axis_1(const OpGraph& graph, const Op& layer, int tensor) {
  const auto& shape = shape_of(graph, tensor);
  return layer.onnx_type != "Gemm" || shape.empty() || shape.size() == 2;
}

// A convolution of a single sample, without an axis of samples, has its
// channels on axis 0.
bool is_batched(const OpGraph& graph, const Op& convolution, int tensor) {
  const graph::Param* weight = weight_of(convolution);
  const auto& shape = shape_of(graph, tensor);
  return weight == nullptr || shape.empty() ||
         weight->shape.size() == shape.size();
}

// The channels of `layer_tensor` are those of `norm_tensor`, on the other side
// of ops that were stepped over.
bool channels_agree(const OpGraph& graph, int layer, int layer_tensor,
                    int norm_tensor) {
  const Op& op = graph.ops[layer];
  if (op.onnx_type == "Gemm") {
    return has_channels_on_axis_1(graph, op, norm_tensor);
  }
  return is_batched(graph, op, layer_tensor) &&
         shape_of(graph, layer_tensor) == shape_of(graph, norm_tensor);
}

// Merges or splits the leading axes, as around a batch norm over the tokens of
// a linear layer: `bn(fc(x).flatten(0, 1)).view(n, -1, c)`.
bool keeps_last_axis(const OpGraph& graph, const Op& op) {
  if (op.onnx_type != "Reshape" && op.onnx_type != "Flatten") return false;
  const auto& before = shape_of(graph, op.inputs.front());
  const auto& after = shape_of(graph, op.outputs.front());
  return !before.empty() && !after.empty() && before.back() == after.back();
}

// Calls of `first` types whose values go to a call of `second` types only.
Pairs adjacent_calls(const OpGraph& graph, Types first, Types second) {
  Pairs pairs;
  for (int index = 0; index < static_cast<int>(graph.ops.size()); ++index) {
    if (!is_call_of(graph.ops[index], first)) continue;
    int reader = sole_reader(graph, index);
    while (reader != kNone && (is_no_op(graph.ops[reader]) ||
                               keeps_last_axis(graph, graph.ops[reader]))) {
      reader = sole_reader(graph, reader);
    }
    if (reader != kNone && is_call_of(graph.ops[reader], second)) {
      pairs.emplace_back(index, reader);
    }
  }
  return pairs;
}

void keep_foldable(const OpGraph& graph, Pairs& pairs) {
  keep_consistent(graph, pairs);
  std::erase_if(pairs, [&](const std::pair<int, int>& pair) {
    return !owns_parameters(graph, pair.first) ||
           !owns_parameters(graph, pair.second);
  });
}

}  // namespace

Pairs foldable_batch_norms(const OpGraph& graph) {
  Pairs pairs = adjacent_calls(graph, {"Conv", "ConvTranspose", "Gemm"},
                               {"BatchNormalization"});
  std::erase_if(pairs, [&](const std::pair<int, int>& pair) {
    return !channels_agree(graph, pair.first,
                           graph.ops[pair.first].outputs.front(),
                           graph.ops[pair.second].inputs.front());
  });
  keep_foldable(graph, pairs);
  return pairs;
}

Pairs forward_foldable_batch_norms(const OpGraph& graph) {
  const Pairs backward = foldable_batch_norms(graph);
  Pairs pairs = adjacent_calls(graph, {"BatchNormalization"}, {"Conv", "Gemm"});
  std::erase_if(pairs, [&](const std::pair<int, int>& pair) {
    const bool folds_backward = std::ranges::any_of(
        backward, [&](const auto& fold) { return fold.second == pair.first; });
    return folds_backward ||
           !channels_agree(graph, pair.second,
                           graph.ops[pair.second].inputs.front(),
                           graph.ops[pair.first].outputs.front());
  });
  keep_foldable(graph, pairs);
  return pairs;
}

std::vector<NormalizedInput> normalized_inputs(const OpGraph& graph) {
  const auto producer_of_input = [&](int op) {
    const auto& inputs = graph.ops[op].inputs;
    return inputs.empty() ? kNone : graph.tensors[inputs.front()].producer;
  };
  std::vector<NormalizedInput> found;
  for (int layer = 0; layer < static_cast<int>(graph.ops.size()); ++layer) {
    const Op& op = graph.ops[layer];
    if (!is_call_of(op, {"Conv", "ConvTranspose", "Gemm"})) continue;
    int source = producer_of_input(layer);
    while (source != kNone && is_no_op(graph.ops[source])) {
      source = producer_of_input(source);
    }
    const Activation activation = source == kNone
                                      ? Activation::none
                                      : activation_of(graph, graph.ops[source]);
    if (activation != Activation::none) source = producer_of_input(source);
    if (source != kNone &&
        is_call_of(graph.ops[source], {"BatchNormalization"}) &&
        channels_agree(graph, layer, op.inputs.front(),
                       graph.ops[source].outputs.front())) {
      found.push_back({layer, source, activation});
    }
  }
  return found;
}

}  // namespace aimetpp::fold
