// SPDX-License-Identifier: BSD-3-Clause
// Following the values from one op to the only one that reads them.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "core/macros.h"
#include "graph/op_graph.h"

namespace aimetpp::fold {

// Identity and Dropout: nothing in evaluation.
bool is_no_op(const graph::Op& op);

// A ReLU6 module, which is a hardtanh in the IR, or F.relu6.
bool is_relu6(const graph::OpGraph& graph, const graph::Op& op);

enum class Activation : std::uint8_t { none, relu, relu6 };

Activation activation_of(const graph::OpGraph& graph, const graph::Op& op);

// That of the op which alone reads the result of `op`, Identity and Dropout
// stepped over.
AIMETPP_API Activation following_activation(const graph::OpGraph& graph,
                                            int op);

// The parameter that the op multiplies by: the first with several axes; null
// where there is none.
const graph::Param* weight_of(const graph::Op& op);

// The op that alone reads the result of `op`; kNone where there is none or
// several, where the result leaves the model, or where `op` has several
// results. Reading a tensor's size does not count.
int sole_reader(const graph::OpGraph& graph, int op);

// Appends to `chain` the sole reader of its last op, and those after it as long
// as `step_over` accepts them; returns the one that it does not accept (also
// appended), or kNone where the chain ends.
template <typename StepOver>
int extend(const graph::OpGraph& graph, std::vector<int>& chain,
           const StepOver& step_over) {
  while (true) {
    const int next = sole_reader(graph, chain.back());
    if (next == graph::kNone || graph.ops[next].call == graph::kNone) {
      return graph::kNone;
    }
    chain.push_back(next);
    if (!step_over(next)) return next;
  }
}

// What holds the parameters of an op: its module's name, the same in all calls
// of that module; a functional op stands for itself.
std::string identity(const graph::OpGraph& graph, int op);

// The parameters of the op are read by calls of its own module only: a weight
// tied to another module's must not change.
bool owns_parameters(const graph::OpGraph& graph, int op);

// Leaves the pairs (op, op) that hold for every call of both modules.
void keep_consistent(const graph::OpGraph& graph,
                     std::vector<std::pair<int, int>>& pairs);

}  // namespace aimetpp::fold
