// SPDX-License-Identifier: BSD-3-Clause
// Bit-operations of a model: sum over ops of MACs x activation bits x param
// bits.
#pragma once

#include <cstdint>
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
};

struct AIMETPP_API CostModel {
  std::vector<CostTerm> terms;

  // Absolute bit-ops per sample; `precisions` holds one entry per quantizer.
  [[nodiscard]] double bit_ops(const std::vector<Precision>& precisions) const;
};

AIMETPP_API CostModel build_cost_model(const graph::OpGraph& graph,
                                       const config::Placement& placement);

}  // namespace aimetpp::mixed
