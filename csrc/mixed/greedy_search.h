// SPDX-License-Identifier: BSD-3-Clause
// Greedy automatic mixed precision: sensitivity of every (group, candidate),
// then a walk that narrows the least sensitive first. Knows groups, candidates
// and costs only; the model is behind `Evaluator`.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "core/macros.h"
#include "core/types.h"
#include "mixed/cost_model.h"

namespace aimetpp::mixed {

// Candidate index per group; kOff: the group's quantizers are off (full
// precision).
inline constexpr int kOff = -1;
using Assignment = std::vector<int>;

enum class Phase : std::uint8_t {
  sensitivity,  // phase 1: may be a proxy metric
  front,        // phase 2: the metric that counts
};

class AIMETPP_API Evaluator {
 public:
  virtual ~Evaluator() = default;
  // Higher is better. Called once for each distinct assignment and phase.
  virtual double evaluate(Phase phase, const Assignment& assignment) = 0;
  // The score where an earlier run has left it, so that the walk's points that
  // this run does not need still are in the result. Never computes anything.
  virtual std::optional<double> known(Phase /*phase*/,
                                      const Assignment& /*assignment*/) {
    return std::nullopt;
  }
  // These will be asked for next, each of them, in this order. An evaluator
  // that can measure several at once, or elsewhere, may do so now.
  virtual void prepare(Phase /*phase*/,
                       const std::vector<Assignment>& /*assignments*/) {}
  // What gives a phase's scores, for errors; empty where it has no name.
  [[nodiscard]] virtual std::string metric(Phase /*phase*/) const { return {}; }
};

struct SearchGroup {
  std::string name;
  std::vector<int> activation_quantizers;  // indices in the cost model
  std::vector<int> param_quantizers;
  std::vector<int> candidates;  // supported ones, by index
};

struct SearchProblem {
  std::vector<Candidate> candidates;
  std::vector<SearchGroup> groups;
  CostModel cost_model;
  int num_quantizers = 0;
  // Precision of quantizers that are in no group being searched (excluded ones
  // keep theirs); one entry per quantizer.
  std::vector<Precision> fixed_precisions;
};

enum class SearchAlgo : std::uint8_t {
  brute_force = 1,
  interpolation = 2,
  binary = 3,
};

struct SearchOptions {
  // In units of the phase-2 score; nullopt: the full profile, whatever `algo`.
  std::optional<double> allowed_drop;
  SearchAlgo algo = SearchAlgo::binary;
  // Walk from the narrowest setting upwards. The points are the same; brute
  // force stops at the first that meets the target instead of the first that
  // misses it.
  bool reverse = false;
  // Most steps of the walk to evaluate in phase 2 (mixed/walk_search.h says
  // which); what an earlier run has left counts as evaluated.
  int max_steps = std::numeric_limits<int>::max();
};

struct Sensitivity {
  int group = 0;
  int candidate = 0;
  double score = 0;
  double bit_ops_reduction = 0;  // absolute, against the baseline
};

struct FrontPoint {
  double relative_bit_ops = 1;  // to the baseline
  double score = 0;
  // The group that this step moved, and where to; kOff for the baseline and
  // the all-narrow assignment where those are no step of the walk. The first
  // step of a reverse walk is its start, with the group that narrows last.
  int group = kOff;
  int candidate = kOff;
  Assignment assignment;
  bool dominated = false;
};

// A step of the walk that was not evaluated.
struct SkippedStep {
  double relative_bit_ops = 1;
  int group = 0;
  int candidate = 0;
  // Scores of the evaluated neighbours, between which its own lies where the
  // score falls along the walk; -infinity where nothing narrower was evaluated.
  double lowest = 0;
  double highest = 0;
};

struct SearchResult {
  double fp32_score = 0;
  double baseline_score = 0;
  double final_score = 0;
  int baseline_candidate = 0;
  std::vector<Sensitivity> sensitivities;  // sorted, least sensitive first
  std::vector<FrontPoint> walk;            // evaluated steps, in walk order
  std::vector<FrontPoint> points;    // every evaluated phase-2 point but FP32
  std::vector<SkippedStep> skipped;  // in walk order
  int chosen = kOff;  // index in `points`; kOff: the baseline stays
  Assignment final_assignment;
  // Least phase-2 score that is within the allowed drop; -infinity without one.
  double target = -std::numeric_limits<double>::infinity();
  // "complete", "target_met_by_all_narrow", "target_unreachable",
  // "nothing_to_narrow".
  std::string stop_reason;
  int evaluations = 0;  // calls of Evaluator::evaluate
};

// Called before each evaluation of what is not known yet: phase, evaluations
// done in it, expected total.
using ProgressFn = std::function<void(Phase, int, int)>;

// Source: AIMET's automatic mixed precision guide (phases 1 and 2).
// Differences, all in favour of the guide's words: the baseline is the widest
// candidate that every group supports; a group only narrows along the walk; an
// assignment is never evaluated twice; without an allowed drop every point is
// evaluated; the choice is the cheapest evaluated point within the drop. Throws
// a value error for no candidates, no groups, or no candidate that all groups
// support, and a runtime error for a score that is not a number, naming phase,
// group and candidate.
AIMETPP_API SearchResult greedy_search(const SearchProblem& problem,
                                       const SearchOptions& options,
                                       Evaluator& evaluator,
                                       const ProgressFn& progress = {});

}  // namespace aimetpp::mixed
