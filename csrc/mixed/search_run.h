// SPDX-License-Identifier: BSD-3-Clause
// What all searches do alike: score every assignment once, set the target,
// measure and sort sensitivities, gather the evaluated points. A search derives
// from it and adds the order in which it looks at assignments.
#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "mixed/greedy_search.h"
#include "mixed/search_space.h"

namespace aimetpp::mixed {

// Where the other groups are while the sensitivity of one is measured.
enum class Others : std::uint8_t {
  off,       // scored in Phase::sensitivity
  baseline,  // scored in Phase::front: a point like any other
};

class SearchRun {
 protected:
  // Keeps the references. Throws a value error for a drop that is NaN, and as
  // SearchSpace does.
  SearchRun(const SearchProblem& problem, std::optional<double> allowed_drop,
            Others others, Evaluator& evaluator, const ProgressFn& progress);

  // Asks the evaluator where this run has not yet. `what` names the assignment
  // in the error for a score that is not a number.
  double score(Phase phase, const Assignment& assignment,
               const std::string& what);
  // The evaluations that a phase will have had when `more` are done.
  void expect(Phase phase, int more);

  // Full precision and baseline, and the target that follows from them.
  void score_ends();
  // Takes over the sensitivities of an earlier run, if it has left all of them.
  void recall_sensitivities();
  void measure_sensitivities();
  // The target holds with every group at its narrowest.
  bool narrowest_meets_target();

  // Fills `points`: baseline, then the all-narrow assignment where it was
  // scored and is no step, then `walk`.
  void collect_points();
  // Leaves the search at an entry of `points`; 0 is the baseline.
  SearchResult finish(int chosen, const char* stop_reason);

  [[nodiscard]] std::string group_name(int group) const {
    return problem_.groups[group].name;
  }
  [[nodiscard]] std::string candidate_name(int candidate) const {
    return problem_.candidates[candidate].name();
  }

  const SearchProblem& problem_;
  const SearchSpace space_;
  Evaluator& evaluator_;
  SearchResult result_;
  double target_ = -std::numeric_limits<double>::infinity();
  // By phase.
  std::array<std::map<Assignment, double>, 2> scores_;

 private:
  void set_target();
  void sort_sensitivities();
  void mark_dominated(std::vector<FrontPoint>* points) const;
  [[nodiscard]] Phase sensitivity_phase() const;
  [[nodiscard]] Assignment measured_at(const Move& move) const;

  const std::optional<double> allowed_drop_;
  const Others others_;
  const ProgressFn& progress_;
  Assignment narrow_;  // the all-narrow assignment; empty: not scored
  // By phase.
  std::array<int, 2> done_{};
  std::array<int, 2> expected_{};
};

}  // namespace aimetpp::mixed
