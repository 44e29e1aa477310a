// SPDX-License-Identifier: BSD-3-Clause
// Which nodes of a trace lie inside which call. Internal to graph/.
#pragma once

#include <cstddef>
#include <vector>

#include "graph/flat_ir.h"
#include "graph/op_graph.h"

namespace aimetpp::graph {

// The nodes of one call: all from `first` to `last`, since a call ends before
// the next one starts.
struct CallSpan {
  int first = kNone;  // node index; kNone: the call left no trace
  int last = kNone;
};

// A call starts at the first marker of an input or a parameter and ends at the
// last marker of an output. Without the former (it makes tensors out of
// nothing markable) it starts at the first node of its own that its output
// depends on; without the latter (a loss, an index) it ends at the last node
// that reads its inner floating tensors.
//
// Throws a value error for a marker whose site, or a site whose call, does not
// exist, and a runtime error where two calls overlap.
std::vector<CallSpan> find_call_spans(const FlatIr& ir,
                                      const std::vector<Call>& calls,
                                      const std::vector<Site>& sites);

// The call of each node; kNone for one outside any.
std::vector<int> calls_by_node(const std::vector<CallSpan>& spans,
                               std::size_t num_nodes);

// The site of a marker node.
int marked_site(const IrNode& marker);

}  // namespace aimetpp::graph
