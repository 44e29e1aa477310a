// SPDX-License-Identifier: BSD-3-Clause
#include "mixed/search_counts.h"

#include <algorithm>
#include <set>

#include "mixed/search_space.h"
#include "mixed/walk_search.h"

namespace aimetpp::mixed {
namespace {

// Every group that can narrow makes one step at least, every move one at most.
StepCounts count_walk(const SearchSpace& space, const SearchOptions& options) {
  std::set<int> groups;
  for (const Move& move : space.moves()) groups.insert(move.group);
  const WalkOptions walk = walk_options(options, 0);
  return {count_steps(static_cast<int>(groups.size()), walk).least,
          count_steps(static_cast<int>(space.moves().size()), walk).most};
}

// AIMET's bisection looks at both ends of the list first.
int most_reference_points(int entries, const SearchOptions& options) {
  if (!options.allowed_drop || options.algo != SearchAlgo::binary) {
    return entries;
  }
  int points = std::min(entries, 2);
  for (int width = entries - 1; width > 1; width -= width / 2) ++points;
  return points;
}

}  // namespace

EvaluationCounts count_evaluations(const SearchProblem& problem,
                                   const SearchOptions& options) {
  const SearchSpace space(problem);
  EvaluationCounts counts;
  counts.front_least = 2;  // full precision and the baseline
  counts.front_most = 2;
  if (space.moves().empty()) return counts;
  const StepCounts walk = count_walk(space, options);
  counts.sensitivity_most = static_cast<int>(space.moves().size());
  counts.front_most += walk.most;
  if (options.allowed_drop) {
    ++counts.front_most;  // every group at its narrowest
  } else {
    counts.sensitivity_least = counts.sensitivity_most;
    counts.front_least += walk.least;
  }
  return counts;
}

std::vector<Assignment> list_evaluations(const SearchProblem& problem,
                                         Phase phase) {
  const SearchSpace space(problem);
  if (phase == Phase::front) {
    return {Assignment(problem.groups.size(), kOff), space.baseline()};
  }
  std::vector<Assignment> assignments;
  for (const Move& move : space.moves()) {
    assignments.push_back(space.alone(move));
  }
  return assignments;
}

EvaluationCounts count_reference_evaluations(const SearchProblem& problem,
                                             const SearchOptions& options) {
  const int baseline = SearchSpace(problem).baseline_candidate();
  std::set<int> anywhere;
  int entries = 0;
  for (const SearchGroup& group : problem.groups) {
    for (const int candidate : group.candidates) {
      anywhere.insert(candidate);
      if (candidate != baseline) ++entries;
    }
  }
  EvaluationCounts counts;
  const int ends = 1 + static_cast<int>(anywhere.size());
  counts.sensitivity_most = entries;
  counts.front_least = ends;
  counts.front_most =
      ends + (entries == 0 ? 0 : most_reference_points(entries, options) + 1);
  if (!options.allowed_drop) {
    counts.sensitivity_least = entries;
    counts.front_least = counts.front_most;
  }
  return counts;
}

}  // namespace aimetpp::mixed
