// SPDX-License-Identifier: BSD-3-Clause
// Builds small OpGraphs by hand for the torch-free tests, as the reader would
// from a traced model:
//
//   GraphBuilder b;
//   int x = b.input({1, 3, 8, 8});
//   int y = b.leaf("relu", "relu1", {b.leaf("conv2d", "conv1", {x}, conv)});
//   b.output(b.functional("add", "", {y, x}));   // `y + x` in the root
//   OpGraph graph = b.build();
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "graph/op_graph.h"
#include "graph/op_traits.h"

namespace aimetpp::testing {

struct LeafOptions {
  std::vector<std::pair<std::string, std::vector<std::int64_t>>> params;
  std::int64_t macs = 0;
  bool multiplies_activations = false;
  std::vector<std::int64_t> shape;  // of the output
  std::string type;                 // class name; default: the kind
};

// A conv-like leaf: weight and bias, `macs` multiply-accumulates.
inline LeafOptions with_weight(std::int64_t macs = 1,
                               std::vector<std::int64_t> shape = {4, 4, 3, 3}) {
  LeafOptions options;
  options.params = {{"weight", shape}, {"bias", {shape.front()}}};
  options.macs = macs;
  return options;
}

class GraphBuilder {
 public:
  int input(std::vector<std::int64_t> shape = {1, 4, 8, 8}) {
    graph::Tensor tensor;
    tensor.origin = graph::Origin::model_input;
    tensor.model_input = static_cast<int>(graph_.model_inputs.size());
    tensor.shape = std::move(shape);
    graph_.model_inputs.push_back(add_tensor(std::move(tensor)));
    return graph_.model_inputs.back();
  }

  int constant(std::vector<std::int64_t> shape = {4}) {
    graph::Tensor tensor;
    tensor.origin = graph::Origin::constant;
    tensor.shape = std::move(shape);
    return add_tensor(std::move(tensor));
  }

  // A leaf module's call. A second leaf of the same name is its second call and
  // shares the first one's param sites.
  int leaf(const std::string& kind, const std::string& module,
           const std::vector<int>& inputs, const LeafOptions& options = {}) {
    graph::Call call;
    call.module = module;
    call.ordinal = module_calls_[module]++;
    call.type = options.type.empty() ? kind : options.type;
    return add_call(kind, std::move(call), inputs, options);
  }

  // A functional op in `module` ("" is the root).
  int functional(const std::string& kind, const std::string& module,
                 const std::vector<int>& inputs,
                 const LeafOptions& options = {}) {
    graph::Call call;
    call.module = module;
    call.ordinal = functional_calls_[module + "/" + kind]++;
    call.functional = true;
    call.type = kind;
    return add_call(kind, std::move(call), inputs, options);
  }

  // An op seen in the IR only, without sites (a view between calls).
  int bare(const std::string& kind, const std::vector<int>& inputs) {
    graph::Op op = make_op(kind, inputs);
    op.name = kind + "@" + std::to_string(graph_.ops.size());
    op.input_sites.assign(inputs.size(), graph::kNone);
    op.output_sites = {graph::kNone};
    return finish_op(std::move(op), {});
  }

  void output(int tensor) {
    graph_.tensors[tensor].is_model_output = true;
    graph_.model_outputs.push_back(tensor);
  }

  [[nodiscard]] graph::OpGraph build() const { return graph_; }

 private:
  int add_tensor(graph::Tensor tensor) {
    graph_.tensors.push_back(std::move(tensor));
    return static_cast<int>(graph_.tensors.size()) - 1;
  }

  int add_site(graph::SiteKind kind, int call, int slot,
               const std::string& param = "") {
    graph::Site site;
    site.id = static_cast<int>(graph_.sites.size());
    site.kind = kind;
    site.call = call;
    site.slot = slot;
    site.param = param;
    graph_.sites.push_back(site);
    return site.id;
  }

  static graph::Op make_op(const std::string& kind,
                           const std::vector<int>& inputs) {
    const graph::OpTraits& traits = graph::op_traits(kind);
    graph::Op op;
    op.kind = kind;
    op.onnx_type = traits.onnx_type;
    op.role = traits.role;
    op.inputs = inputs;
    return op;
  }

  int finish_op(graph::Op op, std::vector<std::int64_t> shape) {
    const int index = static_cast<int>(graph_.ops.size());
    for (int slot = 0; slot < static_cast<int>(op.inputs.size()); ++slot) {
      graph_.tensors[op.inputs[slot]].uses.push_back({index, slot});
    }
    graph::Tensor tensor;
    tensor.producer = index;
    tensor.shape = std::move(shape);
    op.outputs = {add_tensor(std::move(tensor))};
    graph_.ops.push_back(std::move(op));
    return graph_.ops.back().outputs.front();
  }

  int add_call(const std::string& kind, graph::Call call,
               const std::vector<int>& inputs, const LeafOptions& options) {
    const int call_index = static_cast<int>(graph_.calls.size());
    graph::Op op = make_op(kind, inputs);
    op.call = call_index;
    op.name = call.name();
    op.macs = options.macs;
    op.multiplies_activations = options.multiplies_activations;
    const std::string module = call.module;
    graph_.calls.push_back(std::move(call));
    for (int slot = 0; slot < static_cast<int>(inputs.size()); ++slot) {
      op.input_sites.push_back(
          add_site(graph::SiteKind::input, call_index, slot));
    }
    for (const auto& [name, shape] : options.params) {
      auto [entry, added] = param_sites_.try_emplace(module + "." + name, 0);
      if (added) {
        entry->second = add_site(graph::SiteKind::param, call_index, 0, name);
      }
      op.params.push_back({entry->second, name, shape, entry->second});
    }
    op.output_sites = {add_site(graph::SiteKind::output, call_index, 0)};
    return finish_op(std::move(op), options.shape);
  }

  graph::OpGraph graph_;
  std::map<std::string, int> module_calls_;
  std::map<std::string, int> functional_calls_;
  std::map<std::string, int> param_sites_;
};

}  // namespace aimetpp::testing
