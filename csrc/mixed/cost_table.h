// SPDX-License-Identifier: BSD-3-Clause
// A cost of one's own in place of bit-ops: a table by op and precision, such as
// measured latencies.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "config/placement.h"
#include "core/macros.h"
#include "mixed/cost_model.h"
#include "mixed/greedy_search.h"

namespace aimetpp::mixed {

struct CostRow {
  std::string op;  // name ("conv1", "/add_0"), ONNX type ("Conv") or kind
  Precision activation;
  std::optional<Precision> param;  // absent: an op without a weight
  double cost = 0;
};

// One term per op that has rows, under its name, else its ONNX type, else its
// kind. The activation is what the op multiplies with its weight (input 0);
// of an op without a weight its output; a product of two activations has the
// second as `param`. Throws a value error for an op that multiplies and has no
// rows, rows that fit no op, two rows for one case, and costs that are negative
// or no number.
AIMETPP_API CostModel build_table_cost_model(const graph::OpGraph& graph,
                                             const config::Placement& placement,
                                             const std::vector<CostRow>& rows);

// Every pair of precisions that a search may meet has a cost; else a value
// error that names op and precisions.
AIMETPP_API void check_cost_table(const SearchProblem& problem);

}  // namespace aimetpp::mixed
