// SPDX-License-Identifier: BSD-3-Clause
// Elimination and the budget solver against enumeration of all labels.
#include <gtest/gtest.h>

#include <functional>
#include <limits>
#include <random>

#include "mixed/budget_solver.h"
#include "mixed/elimination.h"

namespace aimetpp::mixed {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();

std::size_t index_in(const std::vector<int>& scope,
                     const std::vector<int>& sizes,
                     const std::vector<int>& labels) {
  std::size_t index = 0;
  for (const int v : scope) {
    index =
        index * static_cast<std::size_t>(sizes[static_cast<std::size_t>(v)]) +
        static_cast<std::size_t>(labels[static_cast<std::size_t>(v)]);
  }
  return index;
}

void for_all_labels(const std::vector<int>& sizes,
                    const std::function<void(const std::vector<int>&)>& visit) {
  std::vector<int> labels(sizes.size());
  for (std::size_t v = 0; v < sizes.size();) {
    if (v == 0) visit(labels);
    if (++labels[v] < sizes[v]) {
      v = 0;
    } else {
      labels[v++] = 0;
    }
  }
}

BudgetProblem random_problem(std::mt19937& random, int variables, int terms) {
  const auto below = [&](int n) {
    return static_cast<int>(random() % static_cast<unsigned>(n));
  };
  BudgetProblem problem;
  for (int v = 0; v < variables; ++v) {
    problem.domain_sizes.push_back(1 + below(3));
  }
  for (int t = 0; t < terms; ++t) {
    BudgetTerm term;
    const int size = 1 + below(3);
    while (static_cast<int>(term.scope.size()) < size) {
      const int v = below(variables);
      if (std::find(term.scope.begin(), term.scope.end(), v) ==
          term.scope.end()) {
        term.scope.push_back(v);
      }
    }
    std::size_t entries = 1;
    for (const int v : term.scope) {
      entries *= static_cast<std::size_t>(
          problem.domain_sizes[static_cast<std::size_t>(v)]);
    }
    for (std::size_t i = 0; i < entries; ++i) {
      const bool forbidden = i > 0 && below(12) == 0;
      term.cost.push_back(forbidden ? kInf : below(1000) / 100.0);
      term.load.push_back(below(2) * below(100) / 10.0);
    }
    problem.terms.push_back(term);
  }
  return problem;
}

std::pair<double, double> cost_and_load(const BudgetProblem& problem,
                                        const std::vector<int>& labels) {
  double cost = 0;
  double load = 0;
  for (const BudgetTerm& term : problem.terms) {
    const std::size_t i = index_in(term.scope, problem.domain_sizes, labels);
    cost += term.cost[i];
    load += term.load[i];
  }
  return {cost, load};
}

// a -- b -- c, two labels each; label 1 costs 1, 5 and 1; neighbours that
// differ load 1.
TEST(BudgetSolver, SolvesAChainByHand) {
  BudgetProblem problem;
  problem.domain_sizes = {2, 2, 2};
  const Table no_load = {0, 0};
  problem.terms = {{{0}, {3, 1}, no_load},
                   {{1}, {0, 5}, no_load},
                   {{2}, {3, 1}, no_load},
                   {{0, 1}, {0, 0, 0, 0}, {0, 1, 1, 0}},
                   {{1, 2}, {0, 0, 0, 0}, {0, 1, 1, 0}}};
  const BudgetSolver solver(problem);
  const BudgetSolution free = solver.solve(2);
  EXPECT_EQ(free.labels, (std::vector<int>{1, 0, 1}));
  EXPECT_DOUBLE_EQ(free.cost, 2);
  const BudgetSolution half = solver.solve(1);
  EXPECT_DOUBLE_EQ(half.cost, 4);
  EXPECT_DOUBLE_EQ(half.load, 1);
  const BudgetSolution none = solver.solve(0);
  EXPECT_EQ(none.labels, (std::vector<int>{0, 0, 0}));
  EXPECT_DOUBLE_EQ(none.cost, 6);
  for (const BudgetSolution& solution : {free, half, none}) {
    EXPECT_TRUE(solution.within_budget);
    EXPECT_DOUBLE_EQ(solution.gap, 0);
  }
}

TEST(Elimination, FindsTheMinimumOfRandomSums) {
  std::mt19937 random(1);
  for (int round = 0; round < 200; ++round) {
    const BudgetProblem problem = random_problem(random, 6, 8);
    std::vector<std::vector<int>> scopes;
    std::vector<Table> tables;
    for (const BudgetTerm& term : problem.terms) {
      scopes.push_back(term.scope);
      tables.push_back(term.cost);
    }
    double least = kInf;
    for_all_labels(problem.domain_sizes, [&](const std::vector<int>& labels) {
      least = std::min(least, cost_and_load(problem, labels).first);
    });
    std::vector<int> labels;
    const Elimination exact(problem.domain_sizes, scopes);
    EXPECT_TRUE(exact.exact());
    EXPECT_NEAR(exact.minimize(tables, &labels), least, 1e-9);
    EXPECT_NEAR(cost_and_load(problem, labels).first, least, 1e-9);
    // Small buckets bound it from below.
    const Elimination bound(problem.domain_sizes, scopes, 4);
    EXPECT_LE(bound.minimize(tables, &labels), least + 1e-9);
  }
}

TEST(BudgetSolver, MatchesEnumerationOnRandomProblems) {
  std::mt19937 random(2);
  int infeasible = 0;
  for (int round = 0; round < 300; ++round) {
    const BudgetProblem problem = random_problem(random, 7, 10);
    const double budget = static_cast<double>(random() % 200) / 10;
    double best = kInf;
    double least_load = kInf;
    for_all_labels(problem.domain_sizes, [&](const std::vector<int>& labels) {
      const auto [cost, load] = cost_and_load(problem, labels);
      if (cost == kInf) return;
      least_load = std::min(least_load, load);
      if (load <= budget + 1e-9) best = std::min(best, cost);
    });
    const BudgetSolution found = BudgetSolver(problem).solve(budget);
    const auto [cost, load] = cost_and_load(problem, found.labels);
    EXPECT_DOUBLE_EQ(cost, found.cost);
    EXPECT_DOUBLE_EQ(load, found.load);
    EXPECT_EQ(found.within_budget, best < kInf);
    if (found.within_budget) {
      EXPECT_NEAR(found.cost, best, 1e-6) << round;
      EXPECT_LE(found.gap, 1e-6);
      EXPECT_LE(found.load, budget + 1e-6);
    } else {
      ++infeasible;
      EXPECT_NEAR(found.load, least_load, 1e-9);
    }
  }
  EXPECT_GT(infeasible, 5);
  EXPECT_LT(infeasible, 200);
}

// A chain with shortcuts, as long as a deep network.
TEST(BudgetSolver, ProvesALongChainOptimal) {
  std::mt19937 random(3);
  BudgetProblem problem;
  const int length = 120;
  problem.domain_sizes.assign(length, 2);
  double most = 0;
  const auto link = [&](int from, int to) {
    const double load = 1 + static_cast<double>(random() % 100);
    problem.terms.push_back({{from, to}, Table(4), {0, load, load, 0}});
    most += load;
  };
  for (int v = 0; v < length; ++v) {
    const double saving = static_cast<double>(random() % 1000) - 500;
    problem.terms.push_back({{v}, {500, 500 + saving}, Table(2)});
    if (v > 0) link(v - 1, v);
    if (v > 2 && v % 3 == 0) link(v - 3, v);
  }
  const BudgetSolver solver(problem);
  double cost = kInf;
  for (const double share : {.05, .1, .2, .4}) {
    const BudgetSolution found = solver.solve(share * most);
    EXPECT_TRUE(found.within_budget);
    EXPECT_LE(found.load, share * most + 1e-6);
    EXPECT_DOUBLE_EQ(found.gap, 0);
    EXPECT_LE(found.cost, cost);
    cost = found.cost;
  }
}

// More entangled than tables can hold: a bound instead of the optimum.
TEST(BudgetSolver, ProvesAGapWhereItIsNotExact) {
  std::mt19937 random(4);
  BudgetProblem problem;
  const int variables = 7;
  problem.domain_sizes.assign(variables, 7);
  for (int a = 0; a < variables; ++a) {
    for (int b = a + 1; b < variables; ++b) {
      BudgetTerm term{{a, b}, {}, {}};
      for (int i = 0; i < 49; ++i) {
        term.cost.push_back(static_cast<double>(random() % 100));
        term.load.push_back(static_cast<double>(random() % 10));
      }
      problem.terms.push_back(std::move(term));
    }
  }
  double best = kInf;
  for_all_labels(problem.domain_sizes, [&](const std::vector<int>& labels) {
    const auto [cost, load] = cost_and_load(problem, labels);
    if (load <= 70) best = std::min(best, cost);
  });
  const BudgetSolution found = BudgetSolver(problem, 5).solve(70);
  ASSERT_TRUE(found.within_budget);
  EXPECT_LE(found.load, 70 + 1e-6);
  EXPECT_GE(found.cost, best);
  EXPECT_LE(found.cost - found.gap, best + 1e-6);
}

}  // namespace
}  // namespace aimetpp::mixed
