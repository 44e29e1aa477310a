// SPDX-License-Identifier: BSD-3-Clause
#include "mixed/search_counts.h"

#include <gtest/gtest.h>

#include "support/landscape.h"

namespace aimetpp::mixed {
namespace {

using aimetpp::testing::additive;
using aimetpp::testing::candidate;
using aimetpp::testing::Landscape;
using aimetpp::testing::two_layers;
using aimetpp::testing::worked_example;
using aimetpp::testing::worked_landscape;

void expect_counts(const EvaluationCounts& counts, int sensitivity_least,
                   int sensitivity_most, int front_least, int front_most) {
  EXPECT_EQ(counts.sensitivity_least, sensitivity_least);
  EXPECT_EQ(counts.sensitivity_most, sensitivity_most);
  EXPECT_EQ(counts.front_least, front_least);
  EXPECT_EQ(counts.front_most, front_most);
}

// Groups a and b have two moves each, c one: 5 evaluations; the walk has 3 to 5
// steps, as where the narrow candidate of a and b comes first.
TEST(SearchCounts, OfTheWholeProfile) {
  expect_counts(count_evaluations(worked_example(), {}), 5, 5, 5, 7);
  SearchOptions two;
  two.max_steps = 2;
  expect_counts(count_evaluations(worked_example(), two), 5, 5, 3, 4);
  Landscape landscape = worked_landscape();
  EXPECT_EQ(greedy_search(worked_example(), {}, landscape).evaluations, 5 + 7);
}

// Unreachable: full precision and baseline. Most: those, all narrow, and of
// five steps the last, then 5 to 3 to 2 to 1.
TEST(SearchCounts, OfATarget) {
  expect_counts(count_evaluations(worked_example(), {.04, SearchAlgo::binary}),
                0, 5, 2, 3 + 4);
  expect_counts(
      count_evaluations(worked_example(), {.04, SearchAlgo::brute_force}), 0, 5,
      2, 3 + 5);
}

TEST(SearchCounts, OfAProblemWithNothingToNarrow) {
  expect_counts(count_evaluations(two_layers({candidate(8, 8)}), {}), 0, 0, 2,
                2);
  expect_counts(count_reference_evaluations(two_layers({candidate(8, 8)}), {}),
                0, 0, 2, 2);
}

// AIMET evaluates c at A8W8 and A8W4, which are the same: 3 groups x 2. Phase
// 2: full precision, 3 candidates everywhere, 6 points, the choice again.
TEST(SearchCounts, OfTheReference) {
  expect_counts(count_reference_evaluations(worked_example(), {}), 6, 6, 11,
                11);
  // Ends, then 5 to 3 to 2 to 1.
  expect_counts(
      count_reference_evaluations(worked_example(), {.04, SearchAlgo::binary}),
      0, 6, 4, 4 + 5 + 1);
  expect_counts(count_reference_evaluations(worked_example(),
                                            {.04, SearchAlgo::brute_force}),
                0, 6, 4, 4 + 6 + 1);
}

TEST(SearchCounts, ListsWhatIsEvaluatedWhateverTheScores) {
  EXPECT_EQ(list_evaluations(worked_example(), Phase::front),
            (std::vector<Assignment>{{kOff, kOff, kOff}, {0, 0, 0}}));
  EXPECT_EQ(list_evaluations(worked_example(), Phase::sensitivity),
            (std::vector<Assignment>{{1, kOff, kOff},
                                     {2, kOff, kOff},
                                     {kOff, 1, kOff},
                                     {kOff, 2, kOff},
                                     {kOff, kOff, 1}}));
}

// A group without the middle candidate has one move fewer in both.
TEST(SearchCounts, FollowWhatGroupsSupport) {
  SearchProblem problem = worked_example();
  problem.groups[0].candidates = {0, 2};
  expect_counts(count_evaluations(problem, {}), 4, 4, 5, 6);
  expect_counts(count_reference_evaluations(problem, {}), 5, 5, 10, 10);
}

}  // namespace
}  // namespace aimetpp::mixed
