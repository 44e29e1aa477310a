// SPDX-License-Identifier: BSD-3-Clause
#include "graph/assembly.h"

#include <algorithm>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <utility>

#include "core/error.h"
#include "graph/aliases.h"
#include "graph/batch_size.h"
#include "graph/call_kind.h"
#include "graph/call_spans.h"
#include "graph/mac_count.h"
#include "graph/masks.h"
#include "graph/op_traits.h"
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
        aliases_(ir, facts_),
        spans_(find_call_spans(ir, calls, sites)),
        tensor_of_(ir.values.size(), kNone),
        op_of_call_(calls.size(), kNone) {
    graph_.calls = std::move(calls);
    graph_.sites = std::move(sites);
    graph_.batch = batch_size(ir_);
    mark_parameters();
  }

  OpGraph run() {
    for (int i = 0; i < num_inputs_; ++i) {
      const int value = ir_.inputs[i];
      tensor_of_[value] = add_tensor(value, Origin::model_input);
      graph_.tensors.back().model_input = i;
      graph_.model_inputs.push_back(tensor_of_[value]);
    }
    const std::vector<int> call_of_node =
        calls_by_node(spans_, ir_.nodes.size());
    for (int n = 0; n < num_nodes(); ++n) {
      const int call = call_of_node[n];
      if (call == kNone) {
        read_bare_node(n);
      } else if (n == spans_[call].last) {
        read_call(call);
      }
    }
    for (const int value : ir_.outputs) {
      const int tensor = tensor_at(value);
      graph_.tensors[tensor].is_model_output = true;
      graph_.model_outputs.push_back(tensor);
    }
    return std::move(graph_);
  }

 private:
  [[nodiscard]] int num_nodes() const {
    return static_cast<int>(ir_.nodes.size());
  }

  [[nodiscard]] const Site& site_at(const IrNode& marker) const {
    return graph_.sites[marked_site(marker)];
  }

  // The graph inputs that a call reads as its parameters.
  void mark_parameters() {
    for (const IrNode& node : ir_.nodes) {
      if (node.is_marker() && site_at(node).kind == SiteKind::param) {
        parameters_.insert(node.args[0].tensors.front());
      }
    }
    for (const int value : ir_.inputs) {
      if (ir_.values[value].requires_grad) parameters_.insert(value);
    }
  }

  int add_tensor(int value, Origin origin) {
    Tensor tensor;
    tensor.origin = origin;
    tensor.is_floating = ir_.values[value].is_floating;
    tensor.shape =
        ir_.values[value].shape.value_or(std::vector<std::int64_t>{});
    graph_.tensors.push_back(std::move(tensor));
    return static_cast<int>(graph_.tensors.size()) - 1;
  }

  int add_output(Op& op, int op_index, int value, int site) {
    const int tensor = add_tensor(value, Origin::op);
    graph_.tensors[tensor].producer = op_index;
    op.outputs.push_back(tensor);
    op.output_sites.push_back(site);
    return tensor;
  }

  void add_input(Op& op, int op_index, int tensor, int site) {
    graph_.tensors[tensor].uses.push_back(
        {op_index, static_cast<int>(op.inputs.size())});
    op.inputs.push_back(tensor);
    op.input_sites.push_back(site);
  }

  [[nodiscard]] int next_op() const {
    return static_cast<int>(graph_.ops.size());
  }

  // The tensor that a value is. Made here where it is not an op's result: a
  // parameter, a constant, or one that leaves a call without a marker.
  int tensor_at(int value) {
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
      return tensor = add_output(graph_.ops[op], op, value, kNone);
    }
    const bool is_parameter = parameters_.contains(value);
    tensor =
        add_tensor(value, is_parameter ? Origin::parameter : Origin::constant);
    if (is_parameter) graph_.tensors[tensor].parameter = value;
    return tensor;
  }

  void read_call(int call) {
    const CallSpan& span = spans_[call];
    std::vector<int> inner;  // nodes
    std::vector<int> copies;
    std::map<SiteKind, std::vector<int>> markers;
    for (int n = span.first; n <= span.last; ++n) {
      const IrNode& node = ir_.nodes[n];
      if (node.is_marker()) {
        markers[site_at(node).kind].push_back(n);
      } else if (copies_marked_output(node)) {
        copies.push_back(n);
      } else {
        inner.push_back(n);
      }
    }
    const int index = next_op();
    const Call& source = graph_.calls[call];
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
    add_marked_inputs(op, index, markers[SiteKind::input]);
    add_unmarked_inputs(op, index, span, inner);
    add_params(op, markers[SiteKind::param]);
    set_macs(op, inner);
    op.rescale = constant_rescale(ir_, inner);
    add_marked_outputs(op, index, span, markers[SiteKind::output]);
    graph_.ops.push_back(std::move(op));
    op_of_call_[call] = index;
    for (const int n : copies) read_bare_node(n);
  }

  // The write with which a tracing wrapper hands the result of an in-place call
  // back to the tensor that the call overwrote.
  [[nodiscard]] bool copies_marked_output(const IrNode& node) const {
    if (node.kind != "aten::copy_") return false;
    const int producer = ir_.values[node.args.at(1).tensors.at(0)].producer;
    return producer != kNone && ir_.nodes[producer].is_marker() &&
           site_at(ir_.nodes[producer]).kind == SiteKind::output;
  }

  // Markers in the order of their slots, each site once.
  [[nodiscard]] std::vector<int> by_slot(std::vector<int> markers) const {
    std::ranges::stable_sort(markers, {},
                             [&](int n) { return site_at(ir_.nodes[n]).slot; });
    for (std::size_t i = 1; i < markers.size(); ++i) {
      const IrNode& node = ir_.nodes[markers[i]];
      if (site_at(node).slot == site_at(ir_.nodes[markers[i - 1]]).slot) {
        raise_value_error("read_jit_graph: a site must be marked once; ",
                          graph_.site_name(marked_site(node)),
                          " is marked again", at_source(node.source));
      }
    }
    return markers;
  }

  void add_marked_inputs(Op& op, int op_index,
                         const std::vector<int>& markers) {
    for (const int n : by_slot(markers)) {
      const IrNode& node = ir_.nodes[n];
      add_input(op, op_index, tensor_at(node.args[0].tensors.front()),
                marked_site(node));
    }
  }

  // Activations that reach the inside of a call without being an argument that
  // can be marked: single numbers, tensors kept from an earlier call.
  // Parameters and buffers that come in that way are the module's own.
  void add_unmarked_inputs(Op& op, int op_index, const CallSpan& span,
                           const std::vector<int>& nodes) {
    for (const int n : nodes) {
      for (const int value : read_values(ir_.nodes[n])) {
        const int producer = ir_.values[value].producer;
        const bool is_inner = producer >= span.first && producer <= span.last;
        if (is_inner || !ir_.values[value].is_floating ||
            !facts_.varies[value]) {
          continue;
        }
        const int tensor = tensor_at(value);
        if (std::ranges::find(op.inputs, tensor) == op.inputs.end()) {
          add_input(op, op_index, tensor, kNone);
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
      op.params.push_back({site, graph_.sites[site].param_name(),
                           shape.value_or(std::vector<std::int64_t>{}),
                           parameter});
    }
  }

  void add_marked_outputs(Op& op, int op_index, const CallSpan& span,
                          const std::vector<int>& markers) {
    for (const int n : by_slot(markers)) {
      const IrNode& node = ir_.nodes[n];
      const int inner = node.args[0].tensors.front();
      const int tensor =
          add_output(op, op_index, node.outputs.front(), marked_site(node));
      tensor_of_[node.outputs.front()] = tensor;
      const int producer = ir_.values[inner].producer;
      const bool made_inside = producer >= span.first &&
                               producer <= span.last &&
                               !ir_.nodes[producer].is_marker();
      if (made_inside && tensor_of_[inner] == kNone) tensor_of_[inner] = tensor;
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
    op.macs = total / graph_.batch;
    op.multiplies_activations = total > 0 && all_activations;
  }

  void read_bare_node(int n) {
    const IrNode& node = ir_.nodes[n];
    if (copies_marked_output(node)) {
      const int written = tensor_at(node.args[1].tensors.front());
      for (const int value : node.outputs) tensor_of_[value] = written;
      write_through(n, written);
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
    Op op = make_bare_op(kind, node.source);
    const int index = next_op();
    for (std::size_t arg = is_copy ? 1 : 0; arg < node.args.size(); ++arg) {
      for (const int value : node.args[arg].tensors) {
        if (ir_.values[value].is_floating) {
          add_input(op, index, tensor_at(value), kNone);
        }
      }
    }
    set_macs(op, {n});
    for (const int value : node.outputs) {
      tensor_of_[value] = add_output(op, index, value, kNone);
    }
    graph_.ops.push_back(std::move(op));
    const bool writes = is_copy || kind.role == OpRole::compute;
    if (writes && writes_in_place(node) && !node.outputs.empty()) {
      write_through(n, tensor_of_[node.outputs.front()]);
    }
  }

  [[nodiscard]] Op make_bare_op(const CallKind& kind,
                                const std::string& source) const {
    Op op;
    op.kind = kind.kind;
    op.onnx_type = kind.onnx_type;
    op.role = kind.role;
    op.name = kind.kind + "@" + std::to_string(next_op());
    op.source = source;
    return op;
  }

  void rename(int object, int tensor) {
    for (const int name : aliases_.names_of(object)) tensor_of_[name] = tensor;
  }

  // Node `n` wrote `written` into its first argument, whose memory others may
  // show. Where that is a view, `x[:, :8] += y`, later readers of x see a merge
  // of both; views of x that are read later are taken anew.
  void write_through(int n, int written) {
    const int object = aliases_.object_of(read_values(ir_.nodes[n]).front());
    const int base = aliases_.base_of(object);
    const std::vector<int> views = aliases_.read_views(base, object, n);
    const int old = tensor_at(base);
    rename(object, written);
    if (object != base) {
      if (views.empty() && !aliases_.is_read_behind(base, n)) return;
      rename(base, merge(n, base, old, written));
    }
    for (const int view : views) rename(view, view_again(view));
  }

  int merge(int n, int base, int old, int written) {
    const std::string kind = "slice_scatter";
    const OpTraits& traits = op_traits(kind);
    // Into a constant (a buffer of zeros): what is written has all the values.
    const bool into_constant = graph_.tensors[old].origin == Origin::constant;
    const int index = next_op();
    Op op =
        make_bare_op({kind, traits.onnx_type,
                      into_constant ? OpRole::grid_preserving : traits.role},
                     ir_.nodes[n].source);
    if (!into_constant) add_input(op, index, old, kNone);
    add_input(op, index, written, kNone);
    const int merged = add_output(op, index, base, kNone);
    graph_.ops.push_back(std::move(op));
    return merged;
  }

  int view_again(int view) {
    const IrNode& node = ir_.nodes[ir_.values[view].producer];
    const int index = next_op();
    Op op = make_bare_op(kind_of_node(ir_, node), node.source);
    add_input(op, index, tensor_at(aliases_.viewed_by(view)), kNone);
    const int tensor = add_output(op, index, view, kNone);
    graph_.ops.push_back(std::move(op));
    return tensor;
  }

  const FlatIr& ir_;
  int num_inputs_;
  ValueFacts facts_;
  Aliases aliases_;
  std::vector<CallSpan> spans_;  // by call
  std::vector<int> tensor_of_;   // by value
  std::vector<int> op_of_call_;
  std::set<int> parameters_;  // value indices
  OpGraph graph_;
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
