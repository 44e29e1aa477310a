// SPDX-License-Identifier: BSD-3-Clause
// Search problems and score landscapes worked by hand, for the tests of the
// greedy search.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "core/error.h"
#include "mixed/greedy_search.h"

namespace aimetpp::testing {

using mixed::Assignment;
using mixed::Evaluator;
using mixed::FrontPoint;
using mixed::kOff;
using mixed::Phase;
using mixed::SearchProblem;

inline Candidate candidate(int activation, int param) {
  return {Precision::integer(activation), Precision::integer(param)};
}

using ScoreFn = std::function<double(Phase, const Assignment&)>;

class Landscape : public Evaluator {
 public:
  explicit Landscape(ScoreFn score) : score_(std::move(score)) {}
  double evaluate(Phase phase, const Assignment& assignment) override {
    EXPECT_TRUE(seen.insert({phase, assignment}).second)
        << "evaluated twice: " << ::testing::PrintToString(assignment);
    return score_(phase, assignment);
  }
  std::optional<double> known(Phase phase,
                              const Assignment& assignment) override {
    const auto found = cache.find({phase, assignment});
    if (found == cache.end()) return std::nullopt;
    return found->second;
  }

  std::set<std::pair<Phase, Assignment>> seen;
  std::map<std::pair<Phase, Assignment>, double> cache;

 private:
  ScoreFn score_;
};

// 1 - the damage that each group does at its candidate:
// damage[group][candidate].
inline ScoreFn additive(std::vector<std::vector<double>> damage) {
  return [damage](Phase, const Assignment& assignment) {
    double score = 1;
    for (std::size_t g = 0; g < assignment.size(); ++g) {
      if (assignment[g] == kOff) continue;
      score -= damage[g][static_cast<std::size_t>(assignment[g])];
    }
    return score;
  };
}

// Two layers and an activation that no layer reads:
//   group "a": activation 0, weight 1, 100 MACs
//   group "b": activation 2, weight 3, 200 MACs
//   group "c": activation 4
inline SearchProblem two_layers(std::vector<Candidate> candidates) {
  SearchProblem problem;
  problem.candidates = std::move(candidates);
  std::vector<int> all;
  for (std::size_t i = 0; i < problem.candidates.size(); ++i) {
    all.push_back(static_cast<int>(i));
  }
  problem.groups = {
      {"a", {0}, {1}, all}, {"b", {2}, {3}, all}, {"c", {4}, {}, all}};
  problem.cost_model.terms = {{100, 0, 1}, {200, 2, 3}};
  problem.num_quantizers = 5;
  problem.fixed_precisions.assign(5, Precision::fp32());
  return problem;
}

// Candidates A16W16, A8W8, A8W4. By hand, with 300 x 256 = 76800 bit-ops at the
// baseline:
//   step  group  candidate  bit-ops                    score
//   1     c      A8W8       76800              1       1 - .005 = .995
//   2     a      A8W8       76800 - 19200      3/4     .985
//   3     b      A8W8       6400 + 12800       1/4     .965
//   4     b      A8W4       6400 + 6400        1/6     .935
//   5     a      A8W4       3200 + 6400        1/8     .745
inline SearchProblem worked_example() {
  return two_layers({candidate(16, 16), candidate(8, 8), candidate(8, 4)});
}
inline Landscape worked_landscape() {
  return Landscape(additive({{0, .01, .20}, {0, .02, .05}, {0, .005, .005}}));
}

inline std::vector<std::pair<double, double>> costs_and_scores(
    const std::vector<FrontPoint>& points) {
  std::vector<std::pair<double, double>> pairs;
  for (const FrontPoint& point : points) {
    pairs.emplace_back(point.relative_bit_ops, point.score);
  }
  return pairs;
}

inline void expect_points(
    const std::vector<FrontPoint>& points,
    const std::vector<std::pair<double, double>>& expected) {
  ASSERT_EQ(points.size(), expected.size())
      << ::testing::PrintToString(costs_and_scores(points));
  for (std::size_t i = 0; i < expected.size(); ++i) {
    EXPECT_NEAR(points[i].relative_bit_ops, expected[i].first, 1e-12) << i;
    EXPECT_NEAR(points[i].score, expected[i].second, 1e-12) << i;
  }
}

inline std::string error_of(const std::function<void()>& call, ErrorKind kind) {
  try {
    call();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), kind) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "no error";
  return "";
}

}  // namespace aimetpp::testing
