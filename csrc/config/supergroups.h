// SPDX-License-Identifier: BSD-3-Clause
// Chains of ops that hardware runs as one (conv + relu), found in the graph.
#pragma once

#include <string>
#include <vector>

#include "core/macros.h"
#include "graph/op_graph.h"

namespace aimetpp::config {

struct Supergroup {
  int pattern = 0;       // index in the config's list
  std::vector<int> ops;  // op indices, first to last
};

// Longest pattern first, then file order; disjoint; never across a tensor that
// has a second reader or is a model output. A batch norm that folds into the op
// before it is stepped over, unless the pattern names BatchNormalization.
AIMETPP_API std::vector<Supergroup> match_supergroups(
    const graph::OpGraph& graph,
    const std::vector<std::vector<std::string>>& patterns);

// The batch norms that fold into the Conv, ConvTranspose or Gemm before them:
// pairs of op indices (that op, the batch norm).
AIMETPP_API std::vector<std::pair<int, int>> foldable_batch_norms(
    const graph::OpGraph& graph);

}  // namespace aimetpp::config
