// SPDX-License-Identifier: BSD-3-Clause
// An op graph as far as its assembly has come, and which of its tensors each
// value of the trace is. Internal to graph/.
#pragma once

#include <set>
#include <string>
#include <utility>
#include <vector>

#include "graph/call_kind.h"
#include "graph/call_spans.h"
#include "graph/flat_ir.h"
#include "graph/op_graph.h"

namespace aimetpp::graph {

class GraphDraft {
 public:
  // Keeps a reference to `ir`.
  GraphDraft(const FlatIr& ir, std::vector<Call> calls,
             std::vector<Site> sites);

  [[nodiscard]] const OpGraph& graph() const { return graph_; }
  // By call.
  [[nodiscard]] const std::vector<CallSpan>& spans() const { return spans_; }
  // The site of a marker node.
  [[nodiscard]] const Site& site_at(const IrNode& marker) const {
    return graph_.sites[marked_site(marker)];
  }

  // The tensor that a value is. Made here where it is not an op's result: a
  // parameter, a constant, or one that leaves a call without a marker.
  int tensor_at(int value);
  [[nodiscard]] bool has_tensor(int value) const {
    return tensor_of_[value] != kNone;
  }
  void set_tensor(int value, int tensor) { tensor_of_[value] = tensor; }

  void add_model_input(int index);
  void add_model_output(int value);

  // The index of the op that is added next. Inputs and outputs are given to
  // that op before it is added.
  [[nodiscard]] int next_op() const {
    return static_cast<int>(graph_.ops.size());
  }
  void add_input(Op& op, int tensor, int site);
  int add_output(Op& op, int value, int site);
  void add_op(Op op) { graph_.ops.push_back(std::move(op)); }
  void add_op_of_call(Op op, int call);
  // The op that is added next, where it stands outside any call.
  [[nodiscard]] Op make_bare_op(const CallKind& kind,
                                const std::string& source) const;

  // Leaves the draft empty.
  OpGraph take() { return std::move(graph_); }

 private:
  void mark_parameters();
  int add_tensor(int value, Origin origin);
  int add_output_of(int op_index, Op& op, int value, int site);

  const FlatIr& ir_;
  std::vector<CallSpan> spans_;  // by call
  std::vector<int> tensor_of_;   // by value
  std::vector<int> op_of_call_;
  std::set<int> parameters_;  // value indices
  OpGraph graph_;
};

}  // namespace aimetpp::graph
