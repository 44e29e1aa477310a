// SPDX-License-Identifier: BSD-3-Clause
// FlatIr + calls + sites -> OpGraph. Internal to graph/.
#pragma once

#include <vector>

#include "graph/flat_ir.h"
#include "graph/op_graph.h"

namespace aimetpp::graph {

// See read_jit_graph.
OpGraph assemble_op_graph(const FlatIr& ir, std::vector<Call> calls,
                          std::vector<Site> sites, int num_inputs);

}  // namespace aimetpp::graph
