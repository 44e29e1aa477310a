// SPDX-License-Identifier: BSD-3-Clause
#include "mixed/search_run.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <tuple>
#include <utility>

#include "core/error.h"

namespace aimetpp::mixed {

SearchRun::SearchRun(const SearchProblem& problem,
                     std::optional<double> allowed_drop, Others others,
                     Evaluator& evaluator, const ProgressFn& progress)
    : problem_(problem),
      space_(problem),
      evaluator_(evaluator),
      allowed_drop_(allowed_drop),
      others_(others),
      progress_(progress) {
  if (allowed_drop && std::isnan(*allowed_drop)) {
    raise_value_error(
        "mixed precision search: allowed_drop must be a number, got nan");
  }
}

double SearchRun::score(Phase phase, const Assignment& assignment,
                        const std::string& what) {
  const auto index = static_cast<std::size_t>(phase);
  const auto found = scores_[index].find(assignment);
  if (found != scores_[index].end()) return found->second;
  if (progress_ && !evaluator_.known(phase, assignment)) {
    progress_(phase, done_[index],
              std::max(expected_[index], done_[index] + 1));
  }
  const double value = evaluator_.evaluate(phase, assignment);
  ++result_.evaluations;
  ++done_[index];
  if (std::isnan(value)) {
    const char* kind = phase == Phase::sensitivity   ? "phase-1 "
                       : others_ == Others::baseline ? ""  // one metric for all
                                                     : "phase-2 ";
    const std::string metric = evaluator_.metric(phase);
    raise_runtime_error("mixed precision search: the ", kind,
                        "score must be a number, got nan for ", what,
                        metric.empty() ? "" : ", from ", metric);
  }
  scores_[index].emplace(assignment, value);
  return value;
}

void SearchRun::expect(Phase phase, int more) {
  const auto index = static_cast<std::size_t>(phase);
  expected_[index] = done_[index] + more;
}

void SearchRun::score_ends() {
  result_.baseline_candidate = space_.baseline_candidate();
  expect(Phase::front, 2 + static_cast<int>(space_.moves().size()));
  const Assignment off(problem_.groups.size(), kOff);
  evaluator_.prepare(Phase::front, {off, space_.baseline()});
  result_.fp32_score = score(Phase::front, off, "the model in full precision");
  result_.baseline_score = score(
      Phase::front, space_.baseline(),
      "the baseline candidate " + candidate_name(result_.baseline_candidate));
  set_target();
}

// A score that equals fp32 - drop in decimals must not miss it by the rounding
// of that difference.
void SearchRun::set_target() {
  if (!allowed_drop_) return;
  const double drop = *allowed_drop_;
  const double target = result_.fp32_score - drop;
  if (std::isnan(target)) return;  // inf - inf: any drop will do
  const double size = std::max(std::abs(result_.fp32_score), std::abs(drop));
  target_ = std::isfinite(target)
                ? target - 4 * std::numeric_limits<double>::epsilon() * size
                : target;
}

Phase SearchRun::sensitivity_phase() const {
  return others_ == Others::off ? Phase::sensitivity : Phase::front;
}

Assignment SearchRun::measured_at(const Move& move) const {
  if (others_ == Others::off) return space_.alone(move);
  Assignment assignment = space_.baseline();
  assignment[move.group] = move.candidate;
  return assignment;
}

void SearchRun::recall_sensitivities() {
  std::vector<Sensitivity> known;
  for (const Move& move : space_.moves()) {
    const auto value = evaluator_.known(sensitivity_phase(), measured_at(move));
    if (!value || std::isnan(*value)) return;
    known.push_back(
        {move.group, move.candidate, *value, space_.bit_ops_reduction(move)});
  }
  result_.sensitivities = std::move(known);
  sort_sensitivities();
}

void SearchRun::measure_sensitivities() {
  expect(sensitivity_phase(), static_cast<int>(space_.moves().size()));
  std::vector<Assignment> assignments;
  for (const Move& move : space_.moves()) {
    assignments.push_back(measured_at(move));
  }
  evaluator_.prepare(sensitivity_phase(), assignments);
  for (const Move& move : space_.moves()) {
    const double value =
        score(sensitivity_phase(), measured_at(move),
              "group " + group_name(move.group) + " alone at candidate " +
                  candidate_name(move.candidate));
    result_.sensitivities.push_back(
        {move.group, move.candidate, value, space_.bit_ops_reduction(move)});
  }
  sort_sensitivities();
}

// Best score first; then the candidate with more bits, the larger saving, the
// earlier group.
void SearchRun::sort_sensitivities() {
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

bool SearchRun::narrowest_meets_target() {
  narrow_ = space_.all_narrow();
  return score(Phase::front, narrow_, "every group at its narrowest") >=
         target_;
}

void SearchRun::collect_points() {
  FrontPoint baseline;
  baseline.score = result_.baseline_score;
  baseline.assignment = space_.baseline();
  result_.points.push_back(std::move(baseline));
  const bool narrow_is_step =
      narrow_.empty() || std::any_of(result_.walk.begin(), result_.walk.end(),
                                     [this](const FrontPoint& step) {
                                       return step.assignment == narrow_;
                                     });
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

void SearchRun::mark_dominated(std::vector<FrontPoint>* points) const {
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

SearchResult SearchRun::finish(int chosen, const char* stop_reason) {
  result_.chosen = chosen == 0 ? kOff : chosen;
  result_.final_score = result_.points[chosen].score;
  result_.final_assignment = result_.points[chosen].assignment;
  result_.stop_reason = stop_reason;
  result_.target = target_;
  return std::move(result_);
}

}  // namespace aimetpp::mixed
