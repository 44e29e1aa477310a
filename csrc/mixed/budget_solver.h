// SPDX-License-Identifier: BSD-3-Clause
// The cheapest labels of discrete variables whose load is within a budget.
//
// Cost and load are sums of functions of a few variables each. The budget is
// priced (Lagrangian relaxation), the priced sum minimized by elimination,
// which gives a lower bound and labels on both sides of the budget; branch and
// bound closes what is left between them.
#pragma once

#include <vector>

#include "mixed/elimination.h"

namespace aimetpp::mixed {

struct BudgetTerm {
  std::vector<int> scope;  // distinct variables
  Table cost;              // the last variable fastest; infinity forbids
  Table load;              // finite, not negative
};

struct BudgetProblem {
  std::vector<int> domain_sizes;
  std::vector<BudgetTerm> terms;
};

struct BudgetSolution {
  std::vector<int> labels;
  double cost = 0;
  double load = 0;
  // False: no labels are within the budget; these have the smallest load.
  bool within_budget = false;
  // Proven: no labels within the budget cost less than cost - gap. 0: optimal,
  // up to rounding.
  double gap = 0;
};

class BudgetSolver {
 public:
  explicit BudgetSolver(BudgetProblem problem, int max_nodes = 2000);

  // Of equally cheap solutions one with low labels.
  [[nodiscard]] BudgetSolution solve(double budget) const;

 private:
  class Search;
  [[nodiscard]] double cost_of(const std::vector<int>& labels) const;
  [[nodiscard]] double load_of(const std::vector<int>& labels) const;

  BudgetProblem problem_;
  int max_nodes_;
  Elimination elimination_;
};

}  // namespace aimetpp::mixed
