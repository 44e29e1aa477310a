// SPDX-License-Identifier: BSD-3-Clause
// Phase 3 of automatic mixed precision: fewer convert ops, by widening groups
// where neighbours differ.
#pragma once

#include <vector>

#include "core/macros.h"
#include "mixed/convert_points.h"
#include "mixed/greedy_search.h"

namespace aimetpp::mixed {

struct ConvertSolution {
  double alpha = 1;
  Assignment assignment;
  double convert_cost = 0;
  double relative_cost = 1;  // bit-ops (or what the cost model counts)
  // False: no assignment is within alpha times the convert cost to start with;
  // this one converts least.
  bool within_budget = true;
  // Proven: no allowed assignment is cheaper by more than this; 0: optimal.
  double gap = 0;
};

// For each alpha the assignment of least cost whose convert ops cost no more
// than alpha times those of `start`. Groups may only widen: a candidate has at
// least the bits of the one in `start`, in everything that the group has; a
// group that is off in `start` stays off. Alpha 1 is `start` itself. Throws a
// value error for an alpha outside [0, 1], and as convert_op_cost.
//
// Source: the guide to AIMET's AMP, phase 3. There two candidates only, and an
// outside solver for mixed-integer programs.
AIMETPP_API std::vector<ConvertSolution> reduce_convert_ops(
    const SearchProblem& problem, const std::vector<ConvertPoint>& points,
    const ConvertTable& table, const Assignment& start,
    const std::vector<double>& alphas);

}  // namespace aimetpp::mixed
