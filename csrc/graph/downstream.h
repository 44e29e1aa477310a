// SPDX-License-Identifier: BSD-3-Clause
// What a change of quantizers can reach.
#pragma once

#include <vector>

#include "core/macros.h"
#include "graph/op_graph.h"

namespace aimetpp::graph {

// The calls that may give other results when what stands at `sites` changes:
// those with one of the sites, and all that read, directly or through others,
// what these make. Indices in OpGraph::calls, ascending.
[[nodiscard]] AIMETPP_API std::vector<int> downstream_calls(
    const OpGraph& graph, const std::vector<int>& sites);

}  // namespace aimetpp::graph
