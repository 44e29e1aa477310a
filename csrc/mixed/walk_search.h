// SPDX-License-Identifier: BSD-3-Clause
// Which steps of a walk to evaluate. Knows costs and scores only; what a step
// changes in the model is the caller's.
#pragma once

#include <functional>
#include <limits>
#include <vector>

#include "mixed/greedy_search.h"

namespace aimetpp::mixed {

// A walk that narrows step after step, counted from the baseline, which is
// step -1 and needs no evaluation.
struct Walk {
  std::vector<double> costs;  // of each step
  double baseline_cost = 1;
  double baseline_score = 0;
  std::function<double(int)> score;  // evaluates a step; each at most once
  // Told which steps will be evaluated, where several are known beforehand.
  std::function<void(const std::vector<int>&)> announce;
};

struct WalkOptions {
  SearchAlgo algo = SearchAlgo::binary;
  bool profile = true;  // the curve, whatever `algo`; false: find `target`
  bool reverse = false;
  double target = -std::numeric_limits<double>::infinity();
  int most = std::numeric_limits<int>::max();  // steps to evaluate
};

// What a search's options mean for its walk.
[[nodiscard]] WalkOptions walk_options(const SearchOptions& options,
                                       double target);

// Evaluates steps until the question is answered, or `most` are evaluated.
//
// The profile of more steps than `most`: the narrowest step, then again and
// again a step inside the largest box. Two neighbours among the evaluated steps
// span a box of cost difference x score difference; where cost and score fall
// along the walk, every point between them lies inside, and the sum of all
// boxes bounds the area by which the curve can still change. The step taken is
// the one whose cost is nearest to the middle. Steps inside boxes without area,
// and those that save nothing on the step before the box, cannot change the
// front and are left out. A smaller `most` evaluates the
// first ones of what a larger one does.
//
// Source: H. W. Hamacher, C. R. Pedersen, S. Ruzika, "Finding representative
// systems for discrete bicriterion optimization problems" (2007), the box
// algorithm with the largest box first.
void search_walk(const Walk& walk, const WalkOptions& options);

// How many steps search_walk evaluates of a walk of `count` steps, whatever
// their scores: the least and the most.
struct StepCounts {
  int least = 0;
  int most = 0;
};
[[nodiscard]] StepCounts count_steps(int count, const WalkOptions& options);

}  // namespace aimetpp::mixed
