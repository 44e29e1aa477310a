// SPDX-License-Identifier: BSD-3-Clause
// A traced graph as plain data, with lists, tuples and constants resolved: what
// jit_reader.cpp makes of TorchScript IR and assemble_op_graph() reads.
// Internal to graph/.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "graph/op_graph.h"

namespace aimetpp::graph {

inline constexpr std::string_view kMarkerKind = "aimetpp::site";

// A tensor at one place in the trace.
struct IrValue {
  std::string name;
  bool is_floating = true;  // also where the trace does not say
  bool requires_grad = false;
  std::optional<std::vector<std::int64_t>> shape;  // nullopt: unknown
  int producer = kNone;  // node index; kNone: a graph input or a constant
  std::optional<double> number;  // of a constant of one element
};

// One argument of a node. A list of tensors is one argument.
struct IrArg {
  std::vector<int> tensors;  // value indices
  std::optional<std::int64_t> number;
  std::string text;
};

struct IrNode {
  std::string kind;  // qualified: "aten::conv2d", "aimetpp::site"
  std::vector<IrArg> args;
  std::vector<int> outputs;  // value indices; a list's tensors one by one
  std::string source;        // "file.py:line", empty where unknown

  [[nodiscard]] bool is_marker() const { return kind == kMarkerKind; }
};

// Nodes are in the order in which they ran.
struct FlatIr {
  std::vector<IrValue> values;
  std::vector<IrNode> nodes;
  std::vector<int> inputs;   // value indices
  std::vector<int> outputs;  // value indices
};

// " (file.py:12)", or "" where the source is unknown; for error messages.
std::string at_source(const std::string& source);

// All tensors that a node reads, in order.
std::vector<int> read_values(const IrNode& node);

// The aten base name of a node, with convolutions told apart by rank and
// direction ("conv2d", "conv_transpose1d"), a reduction by max or min from the
// element-wise one ("maximum"), and a choice between a tensor and a number from
// one between tensors ("masked_fill").
std::string node_kind(const FlatIr& ir, const IrNode& node);

// True for a node that makes floating tensors whose values come from no other
// (zeros, rand_like, fill_): constants.
bool is_creation(const FlatIr& ir, const IrNode& node);

// What one pass over the values tells.
struct ValueFacts {
  // Depends on a model input: an activation rather than a weight or a constant.
  std::vector<bool> varies;
  // The value whose memory a view shows; kNone where a value has its own.
  std::vector<int> viewed;
  // The last node that reads a value; nodes.size() for a graph output.
  std::vector<int> last_use;
};

ValueFacts collect_facts(const FlatIr& ir, int num_inputs);

// Those of a call's `nodes`, in order, that depend on a model input or on a
// marked tensor; all, where none does. How a weight is computed before it is
// marked says nothing of the op that reads it.
std::vector<int> telling_nodes(const FlatIr& ir, const ValueFacts& facts,
                               const std::vector<int>& nodes);

// True for a node that makes new values of what depends on no model input, and
// leaves what it reads as it is.
bool computes_constant(const FlatIr& ir, const ValueFacts& facts,
                       const IrNode& node);

// True for a node that writes into the memory of its first argument.
bool writes_in_place(const IrNode& node);

}  // namespace aimetpp::graph
