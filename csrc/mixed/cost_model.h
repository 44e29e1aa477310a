// SPDX-License-Identifier: BSD-3-Clause
// Bit-operations of a model: sum over ops of MACs x activation bits x param
// bits.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "config/placement.h"
#include "core/macros.h"
#include "core/types.h"
#include "graph/op_graph.h"

namespace aimetpp::mixed {

// One multiplying op. Operands are quantizer indices; kNone: full precision,
// counted as 32 bits.
struct CostTerm {
  std::int64_t macs = 0;  // of one sample
  int lhs = graph::kNone;
  int rhs = graph::kNone;
  // Costs by (lhs, rhs) precision that take the place of bit-ops, and whose
  // they are; empty: bit-ops. See cost_table.h.
  std::map<std::pair<Precision, Precision>, double> costs = {};
  std::string op = {};

  // Throws a value error for a pair that is not in `costs`.
  [[nodiscard]] AIMETPP_API double cost(Precision lhs_precision,
                                        Precision rhs_precision) const;
};

struct AIMETPP_API CostModel {
  std::vector<CostTerm> terms;

  // Absolute bit-ops per sample; `precisions` holds one entry per quantizer.
  [[nodiscard]] double bit_ops(const std::vector<Precision>& precisions) const;
  // The same, or what the terms' own costs say.
  [[nodiscard]] double cost(const std::vector<Precision>& precisions) const;
};

AIMETPP_API CostModel build_cost_model(const graph::OpGraph& graph,
                                       const config::Placement& placement);

}  // namespace aimetpp::mixed
