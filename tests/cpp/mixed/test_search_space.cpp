// SPDX-License-Identifier: BSD-3-Clause
#include <gtest/gtest.h>

#include <cmath>
#include <set>
#include <utility>

#include "mixed/search_space.h"
#include "support/landscape.h"

namespace aimetpp::mixed {
namespace {

using aimetpp::testing::additive;
using aimetpp::testing::candidate;
using aimetpp::testing::error_of;
using aimetpp::testing::expect_points;
using aimetpp::testing::Landscape;
using aimetpp::testing::two_layers;
using aimetpp::testing::worked_example;
using aimetpp::testing::worked_landscape;

// AIMET: a group may be widened again by a later entry of the list.
TEST(SearchSpace, AGroupOnlyNarrowsAlongTheWalk) {
  // A16W16, A16W8, A8W16, A8W8 in group a, in this order of sensitivity.
  SearchProblem problem = two_layers(
      {candidate(16, 16), candidate(16, 8), candidate(8, 16), candidate(8, 8)});
  problem.groups.resize(1);
  Landscape landscape(additive({{0, .01, .02, .03}}));
  const SearchResult result = greedy_search(problem, {}, landscape);
  ASSERT_EQ(result.sensitivities.size(), 3U);
  ASSERT_EQ(result.walk.size(), 2U);  // not A8W16 after A16W8
  EXPECT_EQ(result.walk[0].candidate, 1);
  EXPECT_EQ(result.walk[1].candidate, 3);
}

// AIMET: the best scoring candidate is the baseline, even the narrowest.
TEST(SearchSpace, TheBaselineIsTheWidestCommonCandidate) {
  SearchProblem problem = two_layers(
      {candidate(8, 8), candidate(16, 8), candidate(8, 16), candidate(4, 8)});
  Landscape landscape([](Phase, const Assignment& assignment) {
    double score = 0;  // the narrower the better
    for (const int c : assignment) score += c == 3 ? 2 : c == 0 ? 1 : 0;
    return score;
  });
  const SearchResult result = greedy_search(problem, {}, landscape);
  EXPECT_EQ(result.baseline_candidate, 1);  // A16W8: tie with A8W16
  for (const FrontPoint& point : result.points) {
    EXPECT_LE(point.relative_bit_ops, 1);
  }

  problem.groups[2].candidates = {0, 2, 3};  // group c without A16W8
  Landscape again(additive({{0, 0, 0, 0}, {0, 0, 0, 0}, {0, 0, 0, 0}}));
  EXPECT_EQ(greedy_search(problem, {}, again).baseline_candidate, 2);
}

// AIMET evaluates each activation-only group at every (activation, param) pair.
TEST(SearchSpace, EvaluatesNoCandidateThatChangesNothing) {
  SearchProblem problem = two_layers(
      {candidate(16, 16), candidate(16, 8), candidate(8, 16), candidate(8, 8)});
  problem.groups = {{"activation", {4}, {}, {0, 1, 2, 3}},
                    {"param", {}, {1}, {0, 1, 2, 3}}};
  Landscape landscape([](Phase, const Assignment&) { return 1.0; });
  const SearchResult result = greedy_search(problem, {}, landscape);
  ASSERT_EQ(result.sensitivities.size(), 2U);
  std::set<std::pair<int, int>> moves;
  for (const Sensitivity& item : result.sensitivities) {
    moves.insert({item.group, item.candidate});
  }
  // A8W16 is the first that changes the activation, A16W8 the param.
  EXPECT_EQ(moves, (std::set<std::pair<int, int>>{{0, 2}, {1, 1}}));
}

// AIMET: groups end at a baseline that their kernels do not allow.
TEST(SearchSpace, KeepsToTheCandidatesThatAGroupSupports) {
  SearchProblem problem = worked_example();
  problem.groups[1].candidates = {0, 1};
  Landscape landscape = worked_landscape();
  const SearchResult result = greedy_search(problem, {}, landscape);
  for (const auto& [phase, assignment] : landscape.seen) {
    EXPECT_NE(assignment[1], 2);
  }
  EXPECT_EQ(result.final_assignment, (Assignment{2, 1, 1}));

  problem.groups[1].candidates = {1};
  problem.groups[0].candidates = {0};
  const std::string message = error_of(
      [&] { greedy_search(problem, {}, landscape); }, ErrorKind::value);
  EXPECT_NE(message.find("b: ((8, int), (8, int))"), std::string::npos)
      << message;
}

TEST(SearchSpace, KeepsTheCostOfQuantizersThatAreNotSearched) {
  SearchProblem problem = worked_example();
  problem.groups.erase(problem.groups.begin() + 1);  // group b is excluded
  problem.fixed_precisions[2] = Precision::integer(8);
  problem.fixed_precisions[3] = Precision::integer(4);
  Landscape landscape(additive({{0, .01, .20}, {0, .005, .005}}));
  const SearchResult result = greedy_search(problem, {}, landscape);
  // 25600 + 200 x 32 = 32000; then 6400 + 6400, and 3200 + 6400.
  expect_points(result.walk, {{1, .995}, {.4, .985}, {.3, .795}});
}

TEST(SearchSpace, CostsOneWhereTheModelMultipliesNothing) {
  SearchProblem problem = worked_example();
  problem.cost_model.terms.clear();
  Landscape landscape = worked_landscape();
  for (const FrontPoint& point : greedy_search(problem, {}, landscape).points) {
    EXPECT_EQ(point.relative_bit_ops, 1);
  }
}

TEST(SearchSpace, RefusesProblemsWithoutSense) {
  Landscape landscape = worked_landscape();
  const auto refused = [&](const std::function<void(SearchProblem&)>& spoil) {
    SearchProblem problem = worked_example();
    spoil(problem);
    return error_of([&] { greedy_search(problem, {}, landscape); },
                    ErrorKind::value);
  };
  EXPECT_NE(refused([](auto& p) {
              p.candidates.clear();
            }).find("at least one candidate"),
            std::string::npos);
  EXPECT_NE(refused([](auto& p) {
              p.groups.clear();
            }).find("at least one quantizer group"),
            std::string::npos);
  EXPECT_NE(refused([](auto& p) {
              p.groups[1].candidates = {7};
            }).find("group b supports candidate 7"),
            std::string::npos);
  EXPECT_NE(refused([](auto& p) {
              p.groups[2].param_quantizers = {5};
            }).find("group c holds quantizer 5"),
            std::string::npos);
  EXPECT_NE(refused([](auto& p) {
              p.fixed_precisions.pop_back();
            }).find("must have 5 entries"),
            std::string::npos);
  EXPECT_NE(error_of(
                [&] {
                  greedy_search(worked_example(),
                                {std::nan(""), SearchAlgo::binary}, landscape);
                },
                ErrorKind::value)
                .find("allowed_drop"),
            std::string::npos);
}

}  // namespace
}  // namespace aimetpp::mixed
