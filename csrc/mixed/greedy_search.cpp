// SPDX-License-Identifier: BSD-3-Clause
#include "mixed/greedy_search.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <map>
#include <tuple>
#include <utility>

#include "core/error.h"
#include "mixed/search_space.h"

namespace aimetpp::mixed {
namespace {

class Engine {
 public:
  Engine(const SearchProblem& problem, const SearchOptions& options,
         Evaluator& evaluator, const ProgressFn& progress)
      : problem_(problem),
        options_(options),
        evaluator_(evaluator),
        progress_(progress),
        space_(problem) {}

  SearchResult run();

 private:
  double score(Phase phase, const Assignment& assignment,
               const std::string& what);
  void set_target();
  void recall_sensitivities();
  void measure_sensitivities();
  void sort_sensitivities();
  void plan_walk();
  void turn_walk_around();
  double step_score(int step);
  void search_steps();
  [[nodiscard]] int next_step(int good, double good_score, int bad,
                              double bad_score) const;
  void collect_points();
  void mark_dominated(std::vector<FrontPoint>* points) const;
  [[nodiscard]] int cheapest_in_target() const;
  SearchResult finish(const char* stop_reason, bool may_choose = true);
  [[nodiscard]] std::string candidate_name(int candidate) const {
    return problem_.candidates[candidate].name();
  }

  const SearchProblem& problem_;
  const SearchOptions& options_;
  Evaluator& evaluator_;
  const ProgressFn& progress_;
  const SearchSpace space_;

  SearchResult result_;
  double target_ = -std::numeric_limits<double>::infinity();
  Assignment narrow_;  // the all-narrow assignment; empty: not evaluated
  std::vector<FrontPoint> steps_;  // the whole walk, evaluated or not
  // By phase.
  std::array<std::map<Assignment, double>, 2> scores_;
  std::array<int, 2> done_{};
  std::array<int, 2> expected_{};
};

double Engine::score(Phase phase, const Assignment& assignment,
                     const std::string& what) {
  const auto index = static_cast<std::size_t>(phase);
  const auto found = scores_[index].find(assignment);
  if (found != scores_[index].end()) return found->second;
  if (progress_) {
    progress_(phase, done_[index],
              std::max(expected_[index], done_[index] + 1));
  }
  const double value = evaluator_.evaluate(phase, assignment);
  ++result_.evaluations;
  ++done_[index];
  if (std::isnan(value)) {
    raise_runtime_error("greedy_search: the ",
                        phase == Phase::sensitivity ? "phase-1" : "phase-2",
                        " score must be a number, got nan for ", what);
  }
  scores_[index].emplace(assignment, value);
  return value;
}

// A score that equals fp32 - drop in decimals must not miss it by the rounding
// of that difference.
void Engine::set_target() {
  if (!options_.allowed_drop) return;
  const double drop = *options_.allowed_drop;
  const double target = result_.fp32_score - drop;
  if (std::isnan(target)) return;  // inf - inf: any drop will do
  const double size = std::max(std::abs(result_.fp32_score), std::abs(drop));
  target_ = std::isfinite(target)
                ? target - 4 * std::numeric_limits<double>::epsilon() * size
                : target;
}

// Takes over the sensitivities of an earlier run, if it has left all of them.
void Engine::recall_sensitivities() {
  std::vector<Sensitivity> known;
  for (const Move& move : space_.moves()) {
    const auto value = evaluator_.known(Phase::sensitivity, space_.alone(move));
    if (!value || std::isnan(*value)) return;
    known.push_back(
        {move.group, move.candidate, *value, space_.bit_ops_reduction(move)});
  }
  result_.sensitivities = std::move(known);
  sort_sensitivities();
}

void Engine::measure_sensitivities() {
  expected_[0] = static_cast<int>(space_.moves().size());
  for (const Move& move : space_.moves()) {
    const double value =
        score(Phase::sensitivity, space_.alone(move),
              "group " + problem_.groups[move.group].name +
                  " alone at candidate " + candidate_name(move.candidate));
    result_.sensitivities.push_back(
        {move.group, move.candidate, value, space_.bit_ops_reduction(move)});
  }
  sort_sensitivities();
}

// Best score first; then the candidate with more bits, the larger saving, the
// earlier group.
void Engine::sort_sensitivities() {
  const auto key = [this](const Sensitivity& item) {
    const Candidate& candidate = problem_.candidates[item.candidate];
    return std::make_tuple(
        -item.score,
        -(candidate.activation.bitwidth() + candidate.param.bitwidth()),
        -item.bit_ops_reduction, item.group, item.candidate);
  };
  std::sort(result_.sensitivities.begin(), result_.sensitivities.end(),
            [&key](const Sensitivity& a, const Sensitivity& b) {
              return key(a) < key(b);
            });
}

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
                   problem_.groups[point.group].name + " to candidate " +
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
    expected_[1] = done_[1] + count;
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
  expected_[1] = done_[1] + 1 + static_cast<int>(std::log2(count));
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

void Engine::collect_points() {
  FrontPoint baseline;
  baseline.score = result_.baseline_score;
  baseline.assignment = space_.baseline();
  result_.points.push_back(std::move(baseline));
  bool narrow_is_step = narrow_.empty();
  for (FrontPoint& step : steps_) {
    const auto found = scores_[1].find(step.assignment);
    if (found != scores_[1].end()) {
      step.score = found->second;
    } else {
      const auto known = evaluator_.known(Phase::front, step.assignment);
      if (!known || std::isnan(*known)) continue;
      step.score = *known;
    }
    narrow_is_step = narrow_is_step || step.assignment == narrow_;
    result_.walk.push_back(step);
  }
  if (!narrow_is_step) {
    FrontPoint narrow;
    narrow.relative_bit_ops = space_.relative_bit_ops(narrow_);
    narrow.score = scores_[1].at(narrow_);
    narrow.assignment = narrow_;
    result_.points.push_back(std::move(narrow));
  }
  result_.points.insert(result_.points.end(), result_.walk.begin(),
                        result_.walk.end());
  mark_dominated(&result_.walk);
  mark_dominated(&result_.points);
}

void Engine::mark_dominated(std::vector<FrontPoint>* points) const {
  const auto dominates = [](const FrontPoint& a, const FrontPoint& b) {
    return a.relative_bit_ops <= b.relative_bit_ops && a.score >= b.score &&
           (a.relative_bit_ops < b.relative_bit_ops || a.score > b.score);
  };
  for (FrontPoint& point : *points) {
    point.dominated = std::any_of(
        result_.points.begin(), result_.points.end(),
        [&](const FrontPoint& other) { return dominates(other, point); });
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

SearchResult Engine::finish(const char* stop_reason, bool may_choose) {
  collect_points();
  const int chosen = may_choose ? cheapest_in_target() : 0;
  result_.chosen = chosen == 0 ? kOff : chosen;
  result_.final_score = result_.points[chosen].score;
  result_.final_assignment = result_.points[chosen].assignment;
  result_.stop_reason = stop_reason;
  result_.target = target_;
  return std::move(result_);
}

SearchResult Engine::run() {
  result_.baseline_candidate = space_.baseline_candidate();
  expected_[1] = 2 + static_cast<int>(space_.moves().size());
  result_.fp32_score =
      score(Phase::front, Assignment(problem_.groups.size(), kOff),
            "the model in full precision");
  result_.baseline_score = score(
      Phase::front, space_.baseline(),
      "the baseline candidate " + candidate_name(result_.baseline_candidate));
  set_target();
  // What an earlier run has left belongs to the result, however this one ends.
  recall_sensitivities();
  plan_walk();
  if (result_.baseline_score < target_) {
    return finish("target_unreachable", /*may_choose=*/false);
  }
  if (space_.moves().empty()) return finish("nothing_to_narrow");
  if (options_.allowed_drop) {
    narrow_ = space_.all_narrow();
    if (score(Phase::front, narrow_, "every group at its narrowest") >=
        target_) {
      return finish("target_met_by_all_narrow");
    }
  }
  if (result_.sensitivities.empty()) {
    measure_sensitivities();
    plan_walk();
  }
  search_steps();
  return finish("complete");
}

}  // namespace

SearchResult greedy_search(const SearchProblem& problem,
                           const SearchOptions& options, Evaluator& evaluator,
                           const ProgressFn& progress) {
  if (options.allowed_drop && std::isnan(*options.allowed_drop)) {
    raise_value_error("greedy_search: allowed_drop must be a number, got nan");
  }
  return Engine(problem, options, evaluator, progress).run();
}

}  // namespace aimetpp::mixed
