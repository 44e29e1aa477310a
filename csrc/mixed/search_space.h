// SPDX-License-Identifier: BSD-3-Clause
// What a greedy search may do: the baseline, the moves that narrow it, and what
// an assignment costs. Holds no score.
#pragma once

#include <vector>

#include "mixed/greedy_search.h"

namespace aimetpp::mixed {

// A group taken to a candidate.
struct Move {
  int group;
  int candidate;
};

// Takes a group's quantizers to a candidate; kOff: full precision.
void set_precisions(const SearchProblem& problem, int group, int candidate,
                    std::vector<Precision>* precisions);

// One per quantizer; those outside the groups keep theirs.
std::vector<Precision> precisions_of(const SearchProblem& problem,
                                     const Assignment& assignment);

class SearchSpace {
 public:
  // Keeps a reference to `problem`. Throws a value error for no candidates, no
  // groups, indices out of range, or no candidate that all groups support.
  explicit SearchSpace(const SearchProblem& problem);

  // The widest candidate that every group supports: most activation bits x
  // param bits, then most activation bits, then the user's order.
  [[nodiscard]] int baseline_candidate() const { return baseline_candidate_; }
  [[nodiscard]] const Assignment& baseline() const { return baseline_; }

  // Every move that makes a group narrower than the baseline, in group and user
  // order; of candidates with equal effect on a group (those that differ only
  // in what it has not) the first.
  [[nodiscard]] const std::vector<Move>& moves() const { return moves_; }

  // True where `to` has fewer bits in something that the group has, and more in
  // nothing that it has.
  [[nodiscard]] bool narrows(int group, int from, int to) const;

  // Each group at its narrowest: the end of any walk where a group's candidates
  // form a chain; else the candidate that saves most bit-ops, then has the
  // fewest bits.
  [[nodiscard]] Assignment all_narrow() const;

  // All groups off but the one moved.
  [[nodiscard]] Assignment alone(const Move& move) const;

  // Absolute, of the move on top of the baseline.
  [[nodiscard]] double bit_ops_reduction(const Move& move) const;

  // To the baseline; 1 for a model that multiplies nothing.
  [[nodiscard]] double relative_bit_ops(const Assignment& assignment) const;

 private:
  void check() const;
  [[nodiscard]] int widest_common_candidate() const;
  [[nodiscard]] std::vector<Move> narrowing_moves() const;
  [[nodiscard]] double bit_ops(const Assignment& assignment) const;

  const SearchProblem& problem_;
  int baseline_candidate_ = kOff;
  Assignment baseline_;
  double baseline_bit_ops_ = 0;
  std::vector<Move> moves_;
};

}  // namespace aimetpp::mixed
