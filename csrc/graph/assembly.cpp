// SPDX-License-Identifier: BSD-3-Clause
#include "graph/assembly.h"

#include <algorithm>
#include <cstdint>
#include <map>
#include <utility>

#include "core/error.h"
#include "graph/call_kind.h"
#include "graph/call_spans.h"
#include "graph/graph_draft.h"
#include "graph/in_place_writes.h"
#include "graph/mac_count.h"
#include "graph/masks.h"
#include "graph/rescale.h"

namespace aimetpp::graph {
namespace {

// Walks the nodes in order. A call becomes an op at the last of its nodes, a
// node outside any call at once.
class Assembly {
 public:
  Assembly(const FlatIr& ir, std::vector<Call> calls, std::vector<Site> sites,
           int num_inputs)
      : ir_(ir),
        num_inputs_(num_inputs),
        facts_(collect_facts(ir, num_inputs)),
        draft_(ir, std::move(calls), std::move(sites)),
        writes_(ir, facts_, draft_) {}

  OpGraph run() {
    for (int i = 0; i < num_inputs_; ++i) draft_.add_model_input(i);
    const std::vector<int> call_of_node =
        calls_by_node(draft_.spans(), ir_.nodes.size());
    for (int n = 0; n < num_nodes(); ++n) {
      const int call = call_of_node[n];
      if (call == kNone) {
        read_bare_node(n);
      } else if (n == draft_.spans()[call].last) {
        read_call(call);
      }
    }
    for (const int value : ir_.outputs) draft_.add_model_output(value);
    return draft_.take();
  }

 private:
  [[nodiscard]] int num_nodes() const {
    return static_cast<int>(ir_.nodes.size());
  }

  void read_call(int call) {
    const CallSpan& span = draft_.spans()[call];
    std::vector<int> inner;  // nodes
    std::vector<int> copies;
    std::map<SiteKind, std::vector<int>> markers;
    for (int n = span.first; n <= span.last; ++n) {
      const IrNode& node = ir_.nodes[n];
      if (node.is_marker()) {
        markers[draft_.site_at(node).kind].push_back(n);
      } else if (copies_marked_output(node)) {
        copies.push_back(n);
      } else {
        inner.push_back(n);
      }
    }
    const Call& source = draft_.graph().calls[call];
    inner = telling_nodes(ir_, facts_, inner);
    CallKind kind = kind_of_call(ir_, source, inner);
    Op op;
    op.kind = std::move(kind.kind);
    op.onnx_type = std::move(kind.onnx_type);
    op.role = kind.role;
    op.call = call;
    op.name = source.name();
    op.source =
        source.source.empty() ? ir_.nodes[span.first].source : source.source;
    add_marked_inputs(op, markers[SiteKind::input]);
    add_unmarked_inputs(op, span, inner);
    add_params(op, markers[SiteKind::param]);
    set_macs(op, inner);
    op.rescale = constant_rescale(ir_, inner);
    add_marked_outputs(op, span, markers[SiteKind::output]);
    draft_.add_op_of_call(std::move(op), call);
    for (const int n : copies) read_bare_node(n);
  }

  // The write with which a tracing wrapper hands the result of an in-place call
  // back to the tensor that the call overwrote.
  [[nodiscard]] bool copies_marked_output(const IrNode& node) const {
    if (node.kind != "aten::copy_") return false;
    const int producer = ir_.values[node.args.at(1).tensors.at(0)].producer;
    return producer != kNone && ir_.nodes[producer].is_marker() &&
           draft_.site_at(ir_.nodes[producer]).kind == SiteKind::output;
  }

  // Markers in the order of their slots, each site once.
  [[nodiscard]] std::vector<int> by_slot(std::vector<int> markers) const {
    std::ranges::stable_sort(
        markers, {}, [&](int n) { return draft_.site_at(ir_.nodes[n]).slot; });
    for (std::size_t i = 1; i < markers.size(); ++i) {
      const IrNode& node = ir_.nodes[markers[i]];
      if (draft_.site_at(node).slot ==
          draft_.site_at(ir_.nodes[markers[i - 1]]).slot) {
        raise_value_error("read_jit_graph: a site must be marked once; ",
                          draft_.graph().site_name(marked_site(node)),
                          " is marked again", at_source(node.source));
      }
    }
    return markers;
  }

  void add_marked_inputs(Op& op, const std::vector<int>& markers) {
    for (const int n : by_slot(markers)) {
      const IrNode& node = ir_.nodes[n];
      draft_.add_input(op, draft_.tensor_at(node.args[0].tensors.front()),
                       marked_site(node));
    }
  }

  // Activations that reach the inside of a call without being an argument that
  // can be marked: single numbers, tensors kept from an earlier call.
  // Parameters and buffers that come in that way are the module's own.
  void add_unmarked_inputs(Op& op, const CallSpan& span,
                           const std::vector<int>& nodes) {
    for (const int n : nodes) {
      for (const int value : read_values(ir_.nodes[n])) {
        const int producer = ir_.values[value].producer;
        const bool is_inner = producer >= span.first && producer <= span.last;
        if (is_inner || !ir_.values[value].is_floating ||
            !facts_.varies[value]) {
          continue;
        }
        const int tensor = draft_.tensor_at(value);
        if (std::ranges::find(op.inputs, tensor) == op.inputs.end()) {
          draft_.add_input(op, tensor, kNone);
        }
      }
    }
  }

  void add_params(Op& op, const std::vector<int>& markers) const {
    for (const int n : markers) {
      const IrNode& node = ir_.nodes[n];
      const int site = marked_site(node);
      const bool known = std::ranges::any_of(
          op.params, [&](const Param& param) { return param.site == site; });
      if (known) continue;
      const int parameter = node.args[0].tensors.front();
      const auto& shape = ir_.values[parameter].shape;
      op.params.push_back({site, draft_.graph().sites[site].param_name(),
                           shape.value_or(std::vector<std::int64_t>{}),
                           parameter});
    }
  }

  void add_marked_outputs(Op& op, const CallSpan& span,
                          const std::vector<int>& markers) {
    for (const int n : by_slot(markers)) {
      const IrNode& node = ir_.nodes[n];
      const int inner = node.args[0].tensors.front();
      const int tensor =
          draft_.add_output(op, node.outputs.front(), marked_site(node));
      draft_.set_tensor(node.outputs.front(), tensor);
      const int producer = ir_.values[inner].producer;
      const bool made_inside = producer >= span.first &&
                               producer <= span.last &&
                               !ir_.nodes[producer].is_marker();
      if (made_inside && !draft_.has_tensor(inner)) {
        draft_.set_tensor(inner, tensor);
      }
    }
  }

  // Everything is divided by the batch, also what does not depend on it (a
  // product of two weights), which then rounds down.
  void set_macs(Op& op, const std::vector<int>& nodes) const {
    std::int64_t total = 0;
    bool all_activations = true;
    for (const int n : nodes) {
      const auto count = count_macs(ir_, ir_.nodes[n]);
      if (!count) continue;
      total += count->macs;
      all_activations &= facts_.varies[count->lhs] && facts_.varies[count->rhs];
    }
    op.macs = total / draft_.graph().batch;
    op.multiplies_activations = total > 0 && all_activations;
  }

  void read_bare_node(int n) {
    const IrNode& node = ir_.nodes[n];
    if (copies_marked_output(node)) {
      const int written = draft_.tensor_at(node.args[1].tensors.front());
      for (const int value : node.outputs) draft_.set_tensor(value, written);
      writes_.write_through(n, written);
      return;
    }
    const auto is_floating = [&](int v) { return ir_.values[v].is_floating; };
    const std::vector<int> reads = read_values(node);
    const bool reads_floats = std::ranges::any_of(reads, is_floating);
    const bool makes_floats = std::ranges::any_of(node.outputs, is_floating);
    // Integers made of integers, and constants, are no ops.
    if ((!reads_floats && !makes_floats) || is_creation(ir_, node)) return;
    if (!computes_constant(ir_, facts_, node)) add_bare_op(n);
  }

  void add_bare_op(int n) {
    const IrNode& node = ir_.nodes[n];
    CallKind kind = kind_of_node(ir_, node);
    // copy_(overwritten, source)
    const bool is_copy = node.kind == "aten::copy_";
    Op op = draft_.make_bare_op(kind, node.source);
    for (std::size_t arg = is_copy ? 1 : 0; arg < node.args.size(); ++arg) {
      for (const int value : node.args[arg].tensors) {
        if (ir_.values[value].is_floating) {
          draft_.add_input(op, draft_.tensor_at(value), kNone);
        }
      }
    }
    set_macs(op, {n});
    for (const int value : node.outputs) {
      draft_.set_tensor(value, draft_.add_output(op, value, kNone));
    }
    draft_.add_op(std::move(op));
    const bool writes = is_copy || kind.role == OpRole::compute;
    if (writes && writes_in_place(node) && !node.outputs.empty()) {
      writes_.write_through(n, draft_.tensor_at(node.outputs.front()));
    }
  }

  const FlatIr& ir_;
  int num_inputs_;
  ValueFacts facts_;
  GraphDraft draft_;
  InPlaceWrites writes_;
};

}  // namespace

OpGraph assemble_op_graph(const FlatIr& ir, std::vector<Call> calls,
                          std::vector<Site> sites, int num_inputs) {
  if (num_inputs < 0 || num_inputs > static_cast<int>(ir.inputs.size())) {
    raise_value_error("read_jit_graph: num_inputs must be 0 to ",
                      ir.inputs.size(), ", the graph's inputs, got ",
                      num_inputs);
  }
  OpGraph graph =
      Assembly(ir, std::move(calls), std::move(sites), num_inputs).run();
  find_masks(graph);
  return graph;
}

}  // namespace aimetpp::graph
