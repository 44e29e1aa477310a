// SPDX-License-Identifier: BSD-3-Clause
// What the readers of overwritten memory see. Internal to graph/.
#pragma once

#include "graph/aliases.h"
#include "graph/flat_ir.h"
#include "graph/graph_draft.h"

namespace aimetpp::graph {

class InPlaceWrites {
 public:
  // Keeps references to `ir` and `draft`.
  InPlaceWrites(const FlatIr& ir, const ValueFacts& facts, GraphDraft& draft)
      : ir_(ir), aliases_(ir, facts), draft_(draft) {}

  // Node `n` wrote `written` into its first argument, whose memory others may
  // show. Where that is a view, `x[:, :8] += y`, later readers of x see a merge
  // of both; views of x that are read later are taken anew.
  void write_through(int n, int written);

 private:
  void rename(int object, int tensor);
  int merge(int n, int base, int old, int written);
  int view_again(int view);

  const FlatIr& ir_;
  Aliases aliases_;
  GraphDraft& draft_;
};

}  // namespace aimetpp::graph
