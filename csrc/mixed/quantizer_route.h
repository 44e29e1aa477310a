// SPDX-License-Identifier: BSD-3-Clause
// Where the precision of a leaf's input or output is decided: at its own site,
// at the producer of the tensor, or where its supergroup puts its result out.
#pragma once

#include <vector>

#include "config/placement.h"
#include "graph/op_graph.h"

namespace aimetpp::mixed {

struct QuantizerRoute {
  // Indices in Placement::quantizers, ascending; empty: nothing quantizes the
  // tensor. More than one only where readers quantize it apart.
  std::vector<int> quantizers;
  // Ops walked through from the leaf to the op whose quantizer it is, that one
  // included; empty where the quantizer is the leaf's own.
  std::vector<int> path;
  // The tensor is inside a supergroup: not quantized because hardware keeps it
  // at full width between two fused ops.
  bool fused = false;
};

QuantizerRoute route_of_input(const graph::OpGraph& graph,
                              const config::Placement& placement, int op,
                              int slot);

// For a member of a supergroup that is not its last op: the supergroup's
// output.
QuantizerRoute route_of_output(const graph::OpGraph& graph,
                               const config::Placement& placement, int op,
                               int slot);

// Leaves (and functional ops) that read `tensor`, seen through ops that are in
// the IR only, such as a view between two calls.
std::vector<graph::Use> leaf_uses(const graph::OpGraph& graph, int tensor);

// The tensor that a leaf put out, or a model input, seen back through the same
// ops.
int tensor_of_leaf(const graph::OpGraph& graph, int tensor);

}  // namespace aimetpp::mixed
