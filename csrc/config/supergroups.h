// SPDX-License-Identifier: BSD-3-Clause
// Chains of ops that hardware runs as one (conv + relu), found in the graph.
#pragma once

#include <string>
#include <vector>

#include "graph/op_graph.h"

namespace aimetpp::config {

struct Supergroup {
  int pattern = 0;  // index in the config's list
  // Op indices, first to last, those stepped over included: for [Conv, Relu]
  // also the batch norm in between.
  std::vector<int> ops;
};

// Longest pattern first, then file order; disjoint; never across a tensor that
// has a second reader or is a model output. Stepped over, unless the pattern
// names their type: a batch norm that folds into the op before it, and what
// does nothing in evaluation (Identity, Dropout). Convolutions of any rank and
// any number of groups match; so do functional ops.
std::vector<Supergroup> match_supergroups(
    const graph::OpGraph& graph,
    const std::vector<std::vector<std::string>>& patterns);

}  // namespace aimetpp::config
