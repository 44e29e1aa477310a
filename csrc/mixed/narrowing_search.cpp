// SPDX-License-Identifier: BSD-3-Clause
#include "mixed/narrowing_search.h"

#include <cstddef>
#include <string>
#include <utility>

#include "core/error.h"
#include "mixed/search_run.h"

namespace aimetpp::mixed {
namespace {

class Engine : private SearchRun {
 public:
  Engine(const SearchProblem& problem, const NarrowingOptions& options,
         Evaluator& evaluator, const ProgressFn& progress)
      : SearchRun(problem, options.allowed_drop, Others::baseline, evaluator,
                  progress),
        options_(options) {}

  SearchResult run();

 private:
  // Index in `walk` of the last step that met the target; kOff: none did.
  int narrow_groups();
  [[nodiscard]] bool may_move(const Assignment& current,
                              const Sensitivity& item) const;
  SearchResult end(int last_kept, const char* stop_reason);

  const NarrowingOptions& options_;
};

bool Engine::may_move(const Assignment& current,
                      const Sensitivity& item) const {
  if (!space_.narrows(item.group, current[item.group], item.candidate)) {
    return false;
  }
  if (!options_.max_narrowed) return true;
  const Assignment& baseline = space_.baseline();
  int narrowed = current[item.group] == baseline[item.group] ? 1 : 0;
  for (std::size_t group = 0; group < current.size(); ++group) {
    if (current[group] != baseline[group]) ++narrowed;
  }
  return narrowed <= *options_.max_narrowed;
}

int Engine::narrow_groups() {
  expect(Phase::front, static_cast<int>(result_.sensitivities.size()));
  Assignment current = space_.baseline();
  int last_kept = kOff;
  for (const Sensitivity& item : result_.sensitivities) {
    if (!may_move(current, item)) continue;
    FrontPoint step;
    step.group = item.group;
    step.candidate = item.candidate;
    step.assignment = current;
    step.assignment[item.group] = item.candidate;
    step.relative_bit_ops = space_.relative_bit_ops(step.assignment);
    step.score = score(Phase::front, step.assignment,
                       "group " + group_name(item.group) + " at candidate " +
                           candidate_name(item.candidate) + " as step " +
                           std::to_string(result_.walk.size() + 1));
    result_.walk.push_back(std::move(step));
    if (result_.walk.back().score >= target_) {
      last_kept = static_cast<int>(result_.walk.size()) - 1;
      current = result_.walk.back().assignment;
    } else if (options_.at_break == AtBreak::stop) {
      break;
    }
  }
  return last_kept;
}

SearchResult Engine::end(int last_kept, const char* stop_reason) {
  collect_points();
  const std::size_t first_step = result_.points.size() - result_.walk.size();
  const int chosen =
      last_kept == kOff ? 0 : static_cast<int>(first_step) + last_kept;
  return finish(chosen, stop_reason);
}

SearchResult Engine::run() {
  score_ends();
  recall_sensitivities();
  if (result_.baseline_score < target_) return end(kOff, "target_unreachable");
  if (space_.moves().empty()) return end(kOff, "nothing_to_narrow");
  if (options_.allowed_drop && !options_.max_narrowed &&
      narrowest_meets_target()) {
    collect_points();
    return finish(/*chosen=*/1, "target_met_by_all_narrow");
  }
  if (result_.sensitivities.empty()) measure_sensitivities();
  return end(narrow_groups(), "complete");
}

}  // namespace

SearchResult narrowing_search(const SearchProblem& problem,
                              const NarrowingOptions& options,
                              Evaluator& evaluator,
                              const ProgressFn& progress) {
  if (options.max_narrowed && *options.max_narrowed < 0) {
    raise_value_error("narrowing_search: max_narrowed must be at least 0, got ",
                      *options.max_narrowed);
  }
  return Engine(problem, options, evaluator, progress).run();
}

}  // namespace aimetpp::mixed
