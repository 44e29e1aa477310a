// SPDX-License-Identifier: BSD-3-Clause
// What a call is, from its name and the nodes inside it. Internal to graph/.
#pragma once

#include <string>
#include <vector>

#include "graph/flat_ir.h"
#include "graph/op_graph.h"

namespace aimetpp::graph {

struct CallKind {
  std::string kind;
  std::string onnx_type;
  OpRole role = OpRole::compute;
};

// A functional call is what its function is called. A module is its one compute
// node, whatever moves values around it; several are a composite, known by its
// class name. With no compute node it is the one that moves values, or an
// identity.
CallKind kind_of_call(const FlatIr& ir, const Call& call,
                      const std::vector<int>& nodes);

// A node outside any call.
CallKind kind_of_node(const FlatIr& ir, const IrNode& node);

}  // namespace aimetpp::graph
