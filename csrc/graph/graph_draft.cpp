// SPDX-License-Identifier: BSD-3-Clause
#include "graph/graph_draft.h"

#include <cstddef>
#include <cstdint>

#include "graph/batch_size.h"

namespace aimetpp::graph {

GraphDraft::GraphDraft(const FlatIr& ir, std::vector<Call> calls,
                       std::vector<Site> sites)
    : ir_(ir),
      spans_(find_call_spans(ir, calls, sites)),
      tensor_of_(ir.values.size(), kNone),
      op_of_call_(calls.size(), kNone) {
  graph_.calls = std::move(calls);
  graph_.sites = std::move(sites);
  graph_.batch = batch_size(ir_);
  mark_parameters();
}

// The graph inputs that a call reads as its parameters.
void GraphDraft::mark_parameters() {
  for (const IrNode& node : ir_.nodes) {
    if (node.is_marker() && site_at(node).kind == SiteKind::param) {
      parameters_.insert(node.args[0].tensors.front());
    }
  }
  for (const int value : ir_.inputs) {
    if (ir_.values[value].requires_grad) parameters_.insert(value);
  }
}

void GraphDraft::add_model_input(int index) {
  const int value = ir_.inputs[index];
  tensor_of_[value] = add_tensor(value, Origin::model_input);
  graph_.tensors.back().model_input = index;
  graph_.model_inputs.push_back(tensor_of_[value]);
}

void GraphDraft::add_model_output(int value) {
  const int tensor = tensor_at(value);
  graph_.tensors[tensor].is_model_output = true;
  graph_.model_outputs.push_back(tensor);
}

int GraphDraft::add_tensor(int value, Origin origin) {
  Tensor tensor;
  tensor.origin = origin;
  tensor.is_floating = ir_.values[value].is_floating;
  tensor.shape = ir_.values[value].shape.value_or(std::vector<std::int64_t>{});
  graph_.tensors.push_back(std::move(tensor));
  return static_cast<int>(graph_.tensors.size()) - 1;
}

int GraphDraft::add_output(Op& op, int value, int site) {
  return add_output_of(next_op(), op, value, site);
}

int GraphDraft::add_output_of(int op_index, Op& op, int value, int site) {
  const int tensor = add_tensor(value, Origin::op);
  graph_.tensors[tensor].producer = op_index;
  op.outputs.push_back(tensor);
  op.output_sites.push_back(site);
  return tensor;
}

void GraphDraft::add_input(Op& op, int tensor, int site) {
  graph_.tensors[tensor].uses.push_back(
      {next_op(), static_cast<int>(op.inputs.size())});
  op.inputs.push_back(tensor);
  op.input_sites.push_back(site);
}

void GraphDraft::add_op_of_call(Op op, int call) {
  op_of_call_[call] = next_op();
  add_op(std::move(op));
}

Op GraphDraft::make_bare_op(const CallKind& kind,
                            const std::string& source) const {
  Op op;
  op.kind = kind.kind;
  op.onnx_type = kind.onnx_type;
  op.role = kind.role;
  op.name = kind.kind + "@" + std::to_string(next_op());
  op.source = source;
  return op;
}

int GraphDraft::tensor_at(int value) {
  int& tensor = tensor_of_[value];
  if (tensor != kNone) return tensor;
  const int producer = ir_.values[value].producer;
  if (producer != kNone && ir_.nodes[producer].is_marker()) {
    return tensor = tensor_at(ir_.nodes[producer].args[0].tensors.front());
  }
  for (std::size_t call = 0; producer != kNone && call < spans_.size();
       ++call) {
    const CallSpan& span = spans_[call];
    if (op_of_call_[call] == kNone || producer < span.first ||
        producer > span.last) {
      continue;
    }
    const int op = op_of_call_[call];
    return tensor = add_output_of(op, graph_.ops[op], value, kNone);
  }
  const bool is_parameter = parameters_.contains(value);
  tensor =
      add_tensor(value, is_parameter ? Origin::parameter : Origin::constant);
  if (is_parameter) graph_.tensors[tensor].parameter = value;
  return tensor;
}

}  // namespace aimetpp::graph
