// SPDX-License-Identifier: BSD-3-Clause
#include "mixed/greedy_search.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "mixed/search_run.h"

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
  [[nodiscard]] int next_step(int good, double good_score, int bad,
                              double bad_score) const;
  void collect_walk();
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

// The step to look at between the one known to meet the target and the one
// known to miss it.
int Engine::next_step(int good, double good_score, int bad,
                      double bad_score) const {
  const int middle = good + (bad - good) / 2;
  if (options_.algo == SearchAlgo::binary) return middle;
  const double share = (good_score - target_) / (good_score - bad_score);
  if (!std::isfinite(share)) return middle;
  return std::clamp(good + static_cast<int>(share * (bad - good)), good + 1,
                    bad - 1);
}

void Engine::search_steps() {
  const int count = static_cast<int>(steps_.size());
  const bool profile = !options_.allowed_drop.has_value();
  if (profile || options_.algo == SearchAlgo::brute_force) {
    expect(Phase::front, count);
    for (int step = 0; step < count; ++step) {
      const bool meets = step_score(step) >= target_;
      if (!profile && meets == options_.reverse) return;
    }
    return;
  }
  // Counted from the baseline, whatever the direction of the walk.
  const auto score_at = [&](int narrowings) {
    return step_score(options_.reverse ? count - 1 - narrowings : narrowings);
  };
  expect(Phase::front, 1 + static_cast<int>(std::log2(count)));
  int good = -1;  // the baseline
  double good_score = result_.baseline_score;
  int bad = count - 1;
  double bad_score = score_at(bad);
  if (bad_score >= target_) return;
  while (bad - good > 1) {
    const int middle = next_step(good, good_score, bad, bad_score);
    const double value = score_at(middle);
    if (value >= target_) {
      good = middle;
      good_score = value;
    } else {
      bad = middle;
      bad_score = value;
    }
  }
}

// The steps that have a score, from this run or an earlier one.
void Engine::collect_walk() {
  for (FrontPoint& step : steps_) {
    const auto found = scores_[1].find(step.assignment);
    if (found != scores_[1].end()) {
      step.score = found->second;
    } else {
      const auto known = evaluator_.known(Phase::front, step.assignment);
      if (!known || std::isnan(*known)) continue;
      step.score = *known;
    }
    result_.walk.push_back(step);
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
  return Engine(problem, options, evaluator, progress).run();
}

}  // namespace aimetpp::mixed
