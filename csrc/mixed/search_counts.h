// SPDX-License-Identifier: BSD-3-Clause
// How many evaluations a search takes, before it runs.
#pragma once

#include <vector>

#include "core/macros.h"
#include "mixed/greedy_search.h"

namespace aimetpp::mixed {

// Calls of the evaluator by phase, whatever the scores turn out to be.
struct EvaluationCounts {
  int sensitivity_least = 0;
  int sensitivity_most = 0;
  int front_least = 0;
  int front_most = 0;
};

// Of greedy_search with nothing known beforehand. Throws what it throws for a
// problem without candidates, groups or baseline.
AIMETPP_API EvaluationCounts count_evaluations(const SearchProblem& problem,
                                               const SearchOptions& options);

// What greedy_search evaluates whatever the scores turn out to be: in phase 1
// every move alone, if it gets there, in phase 2 full precision and the
// baseline. Throws as above.
AIMETPP_API std::vector<Assignment> list_evaluations(
    const SearchProblem& problem, Phase phase);

// Of AIMET's search of the same problem with the same options; phase 2's most
// is that of a search that meets no early exit. Without an allowed drop it is
// that of BruteForce, the only algorithm with which AIMET gives the curve.
//
//   phase 1: for each group its candidates, less the baseline; also those that
//            change nothing in it
//   phase 2: full precision, each candidate that any group supports set
//            everywhere, the points of the walk, which has an entry for each
//            evaluation of phase 1, and the choice once more
//
// Source: aimet_torch 2.42, aimet_torch/amp and aimet_common/amp.
AIMETPP_API EvaluationCounts count_reference_evaluations(
    const SearchProblem& problem, const SearchOptions& options);

}  // namespace aimetpp::mixed
