// SPDX-License-Identifier: BSD-3-Clause
#include "mixed/greedy_search.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "core/error.h"
#include "mixed/search_run.h"
#include "mixed/walk_search.h"

namespace aimetpp::mixed {
namespace {

class Engine : private SearchRun {
 public:
  Engine(const SearchProblem& problem, const SearchOptions& options,
         Evaluator& evaluator, const ProgressFn& progress)
      : SearchRun(problem, options.allowed_drop, Others::off, evaluator,
                  progress),
        options_(options) {}

  SearchResult run();

 private:
  void plan_walk();
  void turn_walk_around();
  double step_score(int step);
  void search_steps();
  void collect_walk();
  void list_skipped(const std::vector<bool>& evaluated);
  [[nodiscard]] int cheapest_in_target() const;
  SearchResult end(const char* stop_reason, bool may_choose = true);

  const SearchOptions& options_;
  std::vector<FrontPoint> steps_;  // the whole walk, evaluated or not
};

// The sensitivity list applied entry after entry; an entry that would widen
// what an earlier one has narrowed is left out.
void Engine::plan_walk() {
  Assignment current = space_.baseline();
  for (const Sensitivity& item : result_.sensitivities) {
    if (!space_.narrows(item.group, current[item.group], item.candidate)) {
      continue;
    }
    current[item.group] = item.candidate;
    FrontPoint step;
    step.relative_bit_ops = space_.relative_bit_ops(current);
    step.group = item.group;
    step.candidate = item.candidate;
    step.assignment = current;
    steps_.push_back(std::move(step));
  }
  if (options_.reverse) turn_walk_around();
}

// From the narrowest setting upwards: each step takes back one narrowing. The
// last, which would lead to the baseline, is left out.
void Engine::turn_walk_around() {
  std::reverse(steps_.begin(), steps_.end());
  for (std::size_t step = steps_.size(); step-- > 1;) {
    steps_[step].group = steps_[step - 1].group;
    steps_[step].candidate = steps_[step].assignment[steps_[step].group];
  }
}

double Engine::step_score(int step) {
  const FrontPoint& point = steps_[step];
  return score(Phase::front, point.assignment,
               "step " + std::to_string(step + 1) +
                   " of the walk, which moves group " +
                   group_name(point.group) + " to candidate " +
                   candidate_name(point.candidate));
}

// Counted from the baseline, whatever the direction of the walk.
void Engine::search_steps() {
  const int count = static_cast<int>(steps_.size());
  const auto step_of = [&](int narrowings) {
    return options_.reverse ? count - 1 - narrowings : narrowings;
  };
  Walk walk;
  walk.baseline_score = result_.baseline_score;
  for (int narrowings = 0; narrowings < count; ++narrowings) {
    walk.costs.push_back(steps_[step_of(narrowings)].relative_bit_ops);
  }
  walk.score = [&](int narrowings) { return step_score(step_of(narrowings)); };
  walk.announce = [&](const std::vector<int>& all) {
    std::vector<Assignment> assignments;
    for (const int narrowings : all) {
      assignments.push_back(steps_[step_of(narrowings)].assignment);
    }
    evaluator_.prepare(Phase::front, assignments);
  };
  const WalkOptions options = walk_options(options_, target_);
  expect(Phase::front, count_steps(count, options).most);
  search_walk(walk, options);
}

// The steps that have a score, from this run or an earlier one.
void Engine::collect_walk() {
  std::vector<bool> evaluated(steps_.size(), true);
  for (std::size_t index = 0; index < steps_.size(); ++index) {
    FrontPoint& step = steps_[index];
    const auto found = scores_[1].find(step.assignment);
    if (found != scores_[1].end()) {
      step.score = found->second;
    } else {
      const auto known = evaluator_.known(Phase::front, step.assignment);
      if (!known || std::isnan(*known)) {
        evaluated[index] = false;
        continue;
      }
      step.score = *known;
    }
    result_.walk.push_back(step);
  }
  list_skipped(evaluated);
}

void Engine::list_skipped(const std::vector<bool>& evaluated) {
  constexpr double kNone = -std::numeric_limits<double>::infinity();
  const std::size_t count = steps_.size();
  // Scores of the evaluated steps nearest before and after each, by index.
  std::vector<double> before(count);
  std::vector<double> after(count);
  double nearest = options_.reverse ? kNone : result_.baseline_score;
  for (std::size_t i = 0; i < count; ++i) {
    if (evaluated[i]) nearest = steps_[i].score;
    before[i] = nearest;
  }
  nearest = options_.reverse ? result_.baseline_score : kNone;
  for (std::size_t i = count; i-- > 0;) {
    if (evaluated[i]) nearest = steps_[i].score;
    after[i] = nearest;
  }
  for (std::size_t i = 0; i < count; ++i) {
    if (evaluated[i]) continue;
    const FrontPoint& step = steps_[i];
    result_.skipped.push_back({step.relative_bit_ops, step.group,
                               step.candidate, std::min(before[i], after[i]),
                               std::max(before[i], after[i])});
  }
}

// Index in `points` of the cheapest that meets the target; of equally cheap
// ones the best, and of equal ones the one further along the narrowing, which
// is narrower at no loss. 0 is the baseline.
int Engine::cheapest_in_target() const {
  int chosen = 0;
  for (int index = 1; index < static_cast<int>(result_.points.size());
       ++index) {
    const FrontPoint& point = result_.points[index];
    const FrontPoint& best = result_.points[chosen];
    if (point.score < target_) continue;
    const std::pair<double, double> key{point.relative_bit_ops, -point.score};
    const std::pair<double, double> best_key{best.relative_bit_ops,
                                             -best.score};
    const bool narrower = !options_.reverse || chosen == 0;
    if (key < best_key || (key == best_key && narrower)) chosen = index;
  }
  return chosen;
}

SearchResult Engine::end(const char* stop_reason, bool may_choose) {
  collect_walk();
  collect_points();
  return finish(may_choose ? cheapest_in_target() : 0, stop_reason);
}

SearchResult Engine::run() {
  score_ends();
  // What an earlier run has left belongs to the result, however this one ends.
  recall_sensitivities();
  plan_walk();
  if (result_.baseline_score < target_) {
    return end("target_unreachable", /*may_choose=*/false);
  }
  if (space_.moves().empty()) return end("nothing_to_narrow");
  if (options_.allowed_drop && narrowest_meets_target()) {
    return end("target_met_by_all_narrow");
  }
  if (result_.sensitivities.empty()) {
    measure_sensitivities();
    plan_walk();
  }
  search_steps();
  return end("complete");
}

}  // namespace

SearchResult greedy_search(const SearchProblem& problem,
                           const SearchOptions& options, Evaluator& evaluator,
                           const ProgressFn& progress) {
  if (options.max_steps < 1) {
    raise_value_error("greedy_search: max_steps must be 1 or more, got ",
                      options.max_steps);
  }
  return Engine(problem, options, evaluator, progress).run();
}

}  // namespace aimetpp::mixed
