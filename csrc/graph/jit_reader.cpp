// SPDX-License-Identifier: BSD-3-Clause
#include "graph/jit_reader.h"

#include <torch/csrc/jit/ir/constants.h>
#include <torch/csrc/jit/ir/ir.h>
#include <torch/csrc/jit/passes/inliner.h>

#include <memory>
#include <string>
#include <unordered_map>
#include <utility>

#include "core/error.h"
#include "graph/assembly.h"
#include "graph/flat_ir.h"

namespace aimetpp::graph {
namespace {

namespace jit = torch::jit;
namespace prim = c10::prim;

std::string source_of(const jit::Node& node) {
  const auto position = node.sourceRange().file_line_col();
  if (!position) return "";
  const std::string& file = std::get<0>(*position);
  return file.substr(file.find_last_of('/') + 1) + ":" +
         std::to_string(std::get<1>(*position));
}

// The tensor type of a value; nullptr where it is not one tensor.
c10::TensorTypePtr tensor_type(const jit::Value& value) {
  c10::TypePtr type = value.type();
  if (const auto optional = type->cast<c10::OptionalType>()) {
    type = optional->getElementType();
  }
  return type->cast<c10::TensorType>();
}

bool is_tensor_list(const jit::Value& value) {
  const auto list = value.type()->cast<c10::ListType>();
  return list && list->getElementType()->cast<c10::TensorType>();
}

class Flattener {
 public:
  FlatIr run(const jit::Graph& graph) {
    for (const jit::Value* input : graph.inputs()) {
      if (!tensor_type(*input)) {
        raise_runtime_error(
            "read_jit_graph: a graph input must be a tensor, got ",
            input->type()->str(), " for %", input->debugName());
      }
      ir_.inputs.push_back(add_value(*input, kNone));
    }
    for (const jit::Node* node : graph.nodes()) read_node(*node);
    for (const jit::Value* output : graph.outputs()) {
      for (const int value : tensors_of(output)) ir_.outputs.push_back(value);
    }
    return std::move(ir_);
  }

 private:
  int add_value(const jit::Value& value, int producer) {
    IrValue result;
    result.name = value.debugName();
    result.producer = producer;
    if (const auto type = tensor_type(value)) {
      const auto dtype = type->scalarType();
      result.is_floating = !dtype || c10::isFloatingType(*dtype);
      result.requires_grad = type->requiresGrad().value_or(false);
      if (const auto sizes = type->sizes().concrete_sizes()) {
        result.shape = *sizes;
      }
    }
    ir_.values.push_back(std::move(result));
    const int index = static_cast<int>(ir_.values.size()) - 1;
    tensors_[&value] = {index};
    return index;
  }

  // The tensors that a value holds: one, those of a list or tuple, or none.
  const std::vector<int>& tensors_of(const jit::Value* value) const {
    static const std::vector<int> none;
    const auto found = tensors_.find(value);
    return found == tensors_.end() ? none : found->second;
  }

  void read_node(const jit::Node& node) {
    if (!node.blocks().empty()) {
      raise_runtime_error(
          "read_jit_graph: a traced graph must be flat, got ",
          node.kind().toQualString(), at_source(source_of(node)),
          "; control flow in a scripted function cannot be read");
    }
    if (node.kind() == prim::Constant) {
      read_constant(node);
    } else if (node.kind() == prim::ListConstruct ||
               node.kind() == prim::TupleConstruct) {
      join(node, /*first=*/0, /*step=*/1);
    } else if (node.kind() == prim::DictConstruct) {
      join(node, /*first=*/1, /*step=*/2);  // key, value, key, value ...
    } else if (node.kind() == prim::ListUnpack ||
               node.kind() == prim::TupleUnpack) {
      unpack(node);
    } else if (node.kind() == prim::TupleIndex ||
               (node.kind() == c10::aten::__getitem__ &&
                elements_.contains(node.input(0)))) {
      pick(node);
    } else {
      read_op(node);
    }
  }

  void read_constant(const jit::Node& node) {
    if (!tensor_type(*node.output())) return;
    const int value = add_value(*node.output(), kNone);
    const auto constant = jit::toIValue(node.output());
    if (constant && constant->isTensor() && constant->toTensor().defined()) {
      const at::Tensor& tensor = constant->toTensor();
      ir_.values[value].shape = tensor.sizes().vec();
      ir_.values[value].is_floating = tensor.is_floating_point();
      ir_.values[value].requires_grad = tensor.requires_grad();
      if (tensor.numel() == 1 && !tensor.is_complex()) {
        ir_.values[value].number = tensor.item().toDouble();
      }
    }
  }

  void join(const jit::Node& node, std::size_t first, std::size_t step) {
    std::vector<const jit::Value*> elements;
    std::vector<int> tensors;
    for (std::size_t i = first; i < node.inputs().size(); i += step) {
      elements.push_back(node.input(i));
      const std::vector<int>& inner = tensors_of(node.input(i));
      tensors.insert(tensors.end(), inner.begin(), inner.end());
    }
    elements_[node.output()] = std::move(elements);
    tensors_[node.output()] = std::move(tensors);
  }

  void share(const jit::Value* element, const jit::Value* name) {
    tensors_[name] = std::vector<int>(tensors_of(element));
    if (const auto found = elements_.find(element); found != elements_.end()) {
      elements_[name] = std::vector<const jit::Value*>(found->second);
    }
  }

  void unpack(const jit::Node& node) {
    const auto found = elements_.find(node.input());
    if (found == elements_.end() ||
        found->second.size() != node.outputs().size()) {
      raise_runtime_error("read_jit_graph: ", node.kind().toQualString(),
                          at_source(source_of(node)),
                          " must unpack a list or tuple that is made in the "
                          "graph, with as many elements");
    }
    const std::vector<const jit::Value*> elements = found->second;
    for (std::size_t i = 0; i < elements.size(); ++i) {
      if (elements[i] != node.output(i)) share(elements[i], node.output(i));
    }
  }

  void pick(const jit::Node& node) {
    const auto index = jit::toIValue(node.input(1));
    const auto found = elements_.find(node.input(0));
    if (!index || !index->isInt() || found == elements_.end()) {
      raise_runtime_error("read_jit_graph: the index of ",
                          node.kind().toQualString(),
                          at_source(source_of(node)),
                          " into a list of the graph must be a constant");
    }
    const auto size = static_cast<std::int64_t>(found->second.size());
    const std::int64_t i = index->toInt() + (index->toInt() < 0 ? size : 0);
    if (i < 0 || i >= size) {
      raise_runtime_error("read_jit_graph: the index of ",
                          node.kind().toQualString(),
                          at_source(source_of(node)), " must be below ", size,
                          ", got ", index->toInt());
    }
    share(found->second[static_cast<std::size_t>(i)], node.output());
  }

  [[nodiscard]] IrArg read_arg(const jit::Value* input) const {
    IrArg arg;
    arg.tensors = tensors_of(input);
    const auto constant = jit::toIValue(input);
    if (constant && constant->isInt()) arg.number = constant->toInt();
    if (constant && constant->isBool()) arg.number = constant->toBool();
    if (constant && constant->isString()) arg.text = constant->toStringRef();
    return arg;
  }

  void read_op(const jit::Node& node) {
    IrNode result;
    result.kind = node.kind().toQualString();
    if (node.kind() == prim::PythonOp) {
      result.kind = "python::" + static_cast<const jit::PythonOp&>(node).name();
    }
    bool reads_tensors = false;
    for (const jit::Value* input : node.inputs()) {
      result.args.push_back(read_arg(input));
      reads_tensors |= !result.args.back().tensors.empty();
    }
    // What prim nodes make of numbers (NumToTensor) is a constant.
    const bool is_constant = node.kind().is_prim() && !reads_tensors;
    const int index = is_constant ? kNone : static_cast<int>(ir_.nodes.size());
    for (const jit::Value* output : node.outputs()) {
      add_outputs(*output, index, result.outputs);
    }
    if (is_constant || result.outputs.empty()) return;
    result.source = source_of(node);
    ir_.nodes.push_back(std::move(result));
  }

  // A list or tuple that an op makes is unpacked next to it: its tensors are
  // the unpacked ones.
  void add_outputs(const jit::Value& output, int producer,
                   std::vector<int>& outputs) {
    if (tensor_type(output)) {
      outputs.push_back(add_value(output, producer));
      return;
    }
    const bool is_tuple = output.type()->cast<c10::TupleType>() != nullptr;
    if (!is_tuple && !is_tensor_list(output)) return;
    for (const jit::Use& use : output.uses()) {
      if (use.user->kind() != prim::ListUnpack &&
          use.user->kind() != prim::TupleUnpack) {
        continue;
      }
      std::vector<int> tensors;
      std::vector<const jit::Value*> elements;
      for (const jit::Value* element : use.user->outputs()) {
        elements.push_back(element);
        add_outputs(*element, producer, tensors);
      }
      outputs.insert(outputs.end(), tensors.begin(), tensors.end());
      tensors_[&output] = std::move(tensors);
      elements_[&output] = std::move(elements);
      return;
    }
    outputs.push_back(add_value(output, producer));  // the list as a whole
  }

  FlatIr ir_;
  std::unordered_map<const jit::Value*, std::vector<int>> tensors_;
  std::unordered_map<const jit::Value*, std::vector<const jit::Value*>>
      elements_;
};

}  // namespace

OpGraph read_jit_graph(const jit::Graph& ir, std::vector<Call> calls,
                       std::vector<Site> sites, int num_inputs) {
  // Scripted functions called by the model are functions of their own.
  const std::shared_ptr<jit::Graph> inlined =
      const_cast<jit::Graph&>(ir).copy();
  jit::Inline(*inlined);
  return assemble_op_graph(Flattener().run(*inlined), std::move(calls),
                           std::move(sites), num_inputs);
}

const std::type_info& jit_graph_type() { return typeid(jit::Graph); }

}  // namespace aimetpp::graph
