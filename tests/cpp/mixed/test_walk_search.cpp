// SPDX-License-Identifier: BSD-3-Clause
#include "mixed/walk_search.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "support/landscape.h"

namespace aimetpp::mixed {
namespace {

using aimetpp::testing::additive;
using aimetpp::testing::expect_points;
using aimetpp::testing::Landscape;
using aimetpp::testing::worked_example;
using aimetpp::testing::worked_landscape;

// The steps that a search evaluates, in its order.
std::vector<int> evaluated(std::vector<double> costs,
                           std::vector<double> scores,
                           const WalkOptions& options,
                           std::vector<int>* announced = nullptr) {
  std::vector<int> steps;
  Walk walk;
  walk.costs = std::move(costs);
  walk.baseline_score = 1;
  walk.score = [&](int step) {
    EXPECT_EQ(std::count(steps.begin(), steps.end(), step), 0) << step;
    steps.push_back(step);
    return scores.at(static_cast<std::size_t>(step));
  };
  walk.announce = [&](const std::vector<int>& all) {
    if (announced) *announced = all;
  };
  search_walk(walk, options);
  return steps;
}

WalkOptions profile_of(int most) {
  WalkOptions options;
  options.most = most;
  return options;
}

WalkOptions target_of(double target, SearchAlgo algo) {
  WalkOptions options;
  options.profile = false;
  options.target = target;
  options.algo = algo;
  return options;
}

// Eight steps of cost 1/8 each; flat, then a cliff behind step 5 (cost .25).
const std::vector<double> kCosts = {.875, .75, .625, .5, .375, .25, .125, .0};
const std::vector<double> kCliff = {1, 1, 1, 1, .9, .8, .1, 0};

// The last (box 1 x 1); its middle, step 3 at cost .5, scores 1: the box before
// it is flat and left alone. Between 3 and 7 (.5 x 1): cost .25, step 5; then
// boxes 3-5 (.25 x .2 = .05) and 5-7 (.25 x .8 = .2): step 6; then 3-5: step 4.
// What is left is flat.
TEST(WalkSearch, RefinesTheLargestBoxAndLeavesFlatOnesAlone) {
  EXPECT_EQ(evaluated(kCosts, kCliff, profile_of(7)),
            (std::vector<int>{7, 3, 5, 6, 4}));
}

TEST(WalkSearch, AFewPointsAreTheFirstOfMore) {
  for (const int most : {1, 2, 3, 4}) {
    const std::vector<int> all = {7, 3, 5, 6};
    EXPECT_EQ(evaluated(kCosts, kCliff, profile_of(most)),
              std::vector<int>(all.begin(), all.begin() + most));
  }
}

// As many as there are steps: the whole curve in order, flat parts too.
TEST(WalkSearch, AnnouncesTheWholeProfile) {
  std::vector<int> announced;
  const std::vector<int> all = {0, 1, 2, 3, 4, 5, 6, 7};
  EXPECT_EQ(evaluated(kCosts, kCliff, profile_of(8), &announced), all);
  EXPECT_EQ(announced, all);
  EXPECT_EQ(evaluated(kCosts, kCliff, profile_of(100)), all);
  announced.clear();
  evaluated(kCosts, kCliff, profile_of(3), &announced);
  EXPECT_TRUE(announced.empty());
}

// Costs, not numbers of steps, are halved: half of 1 to 0 is nearest to .55.
TEST(WalkSearch, TakesTheMiddleByCost) {
  EXPECT_EQ(
      evaluated({.95, .9, .85, .55, 0}, {.9, .8, .7, .6, .5}, profile_of(2)),
      (std::vector<int>{4, 3}));
}

// Activations that no op multiplies cost nothing: steps of the baseline's cost
// cannot improve on it, while one of the narrowest's cost may be better.
TEST(WalkSearch, LeavesOutStepsThatSaveNothing) {
  EXPECT_EQ(evaluated({1, 1, 1, .5}, {.9, .8, .7, .6}, profile_of(3)),
            (std::vector<int>{3}));
  EXPECT_EQ(evaluated({1, 1, 1}, {.9, .8, .7}, profile_of(2)),
            (std::vector<int>{2}));
  EXPECT_EQ(evaluated({1, .5, .5}, {.9, .8, .7}, profile_of(2)),
            (std::vector<int>{2, 1}));
}

// The narrowest scores minus infinity: the box before it is infinite, twice;
// the wider one goes first.
TEST(WalkSearch, InfiniteScoresAreRefinedFirst) {
  const double low = -std::numeric_limits<double>::infinity();
  EXPECT_EQ(evaluated({.75, .5, .25, 0}, {.9, low, low, low}, profile_of(3)),
            (std::vector<int>{3, 1, 0}));
}

// Target .85 of kCliff: steps 0 to 4 meet it. Binary: 7 (0), 3 (1), 5 (.8), 4.
// Interpolation: 7; .15 of 8 steps from -1: 0 (1), which does not halve them;
// 3 (1), which does; .15 of 4 from 3: 4 (.9); halved: 5 (.8).
TEST(WalkSearch, FindsATargetWithTheEvaluationsItNeeds) {
  EXPECT_EQ(evaluated(kCosts, kCliff, target_of(.85, SearchAlgo::binary)),
            (std::vector<int>{7, 3, 5, 4}));
  EXPECT_EQ(
      evaluated(kCosts, kCliff, target_of(.85, SearchAlgo::interpolation)),
      (std::vector<int>{7, 0, 3, 4, 5}));
  EXPECT_EQ(evaluated(kCosts, kCliff, target_of(.85, SearchAlgo::brute_force)),
            (std::vector<int>{0, 1, 2, 3, 4, 5}));
  WalkOptions reverse = target_of(.85, SearchAlgo::brute_force);
  reverse.reverse = true;
  EXPECT_EQ(evaluated(kCosts, kCliff, reverse), (std::vector<int>{7, 6, 5, 4}));
}

// 1 - 2 x the share of the cost that is saved; target .5, which step 1 has
// exactly. 7 (-1); (.5 / 2) of 8 steps from -1: step 1; the middle of the six
// that are left, 4; then the guess is the neighbour of step 1.
TEST(WalkSearch, InterpolationHitsAStraightLineAtOnce) {
  std::vector<double> line;
  for (const double cost : kCosts) line.push_back(1 - 2 * (1 - cost));
  EXPECT_EQ(evaluated(kCosts, line, target_of(.5, SearchAlgo::interpolation)),
            (std::vector<int>{7, 1, 4, 2}));
}

TEST(WalkSearch, StopsATargetSearchAtTheLimit) {
  for (const SearchAlgo algo :
       {SearchAlgo::brute_force, SearchAlgo::interpolation,
        SearchAlgo::binary}) {
    WalkOptions options = target_of(.85, algo);
    options.most = 2;
    EXPECT_EQ(evaluated(kCosts, kCliff, options).size(), 2U);
  }
}

// Every walk of up to 20 steps and every place of the target: never more than
// count_steps says, and sometimes as many (of interpolation that is a bound).
TEST(WalkSearch, CountsTheStepsOfEveryTarget) {
  for (int count = 1; count <= 20; ++count) {
    std::vector<double> costs;
    for (int step = 0; step < count; ++step) {
      costs.push_back(1 - (step + 1.) / count);
    }
    for (const SearchAlgo algo :
         {SearchAlgo::brute_force, SearchAlgo::interpolation,
          SearchAlgo::binary}) {
      std::size_t most = 0;
      std::size_t least = 1000;
      for (int meets = 0; meets <= count; ++meets) {
        std::vector<double> scores(static_cast<std::size_t>(count), 0);
        std::fill_n(scores.begin(), meets, 1);
        // Near the high and near the low score, so that interpolation guesses
        // at either end.
        for (const double target : {.01, .5, .99}) {
          const std::size_t steps =
              evaluated(costs, scores, target_of(target, algo)).size();
          most = std::max(most, steps);
          least = std::min(least, steps);
        }
      }
      const StepCounts counts = count_steps(count, target_of(.5, algo));
      if (algo == SearchAlgo::interpolation) {
        EXPECT_GE(counts.most, most) << count;
      } else {
        EXPECT_EQ(counts.most, most) << count;
      }
      EXPECT_EQ(counts.least, least) << count;
    }
  }
}

// The hand-worked walk of support/landscape.h: costs 1, 3/4, 1/4, 1/6, 1/8.
// Step 5 first (box 7/8 x .255). Of the inner ones 3/4 is .1875 from the middle
// 9/16, 1/4 is .3125: step 2. Then 1/8 to 3/4 (5/8 x .24): middle 7/16, step 3.
TEST(GreedySearch, EvaluatesAsManyPointsAsWereAskedFor) {
  Landscape landscape = worked_landscape();
  SearchOptions options;
  options.max_steps = 3;
  const SearchResult result =
      greedy_search(worked_example(), options, landscape);
  EXPECT_EQ(result.evaluations, 2 + 5 + 3);
  expect_points(result.walk, {{3. / 4, .985}, {1. / 4, .965}, {1. / 8, .745}});
  ASSERT_EQ(result.skipped.size(), 2U);
  EXPECT_EQ(result.skipped[0].group, 2);  // "c", which saves nothing
  EXPECT_DOUBLE_EQ(result.skipped[0].relative_bit_ops, 1);
  EXPECT_DOUBLE_EQ(result.skipped[0].highest, 1);
  EXPECT_NEAR(result.skipped[0].lowest, .985, 1e-12);
  EXPECT_EQ(result.skipped[1].group, 1);
  EXPECT_EQ(result.skipped[1].candidate, 2);
  EXPECT_NEAR(result.skipped[1].relative_bit_ops, 1. / 6, 1e-12);
  EXPECT_NEAR(result.skipped[1].highest, .965, 1e-12);
  EXPECT_NEAR(result.skipped[1].lowest, .745, 1e-12);
}

// In reverse the points and their bounds are the same, the order is not.
TEST(GreedySearch, SkipsTheSamePointsInReverse) {
  Landscape landscape = worked_landscape();
  SearchOptions options;
  options.max_steps = 3;
  options.reverse = true;
  const SearchResult result =
      greedy_search(worked_example(), options, landscape);
  expect_points(result.walk, {{1. / 8, .745}, {1. / 4, .965}, {3. / 4, .985}});
  ASSERT_EQ(result.skipped.size(), 2U);
  EXPECT_NEAR(result.skipped[0].relative_bit_ops, 1. / 6, 1e-12);
  EXPECT_NEAR(result.skipped[0].highest, .965, 1e-12);
  EXPECT_NEAR(result.skipped[0].lowest, .745, 1e-12);
  EXPECT_DOUBLE_EQ(result.skipped[1].highest, 1);
}

// Both ends at once, then phase 1, then the walk: what can be shared out.
TEST(GreedySearch, SaysBeforehandWhatItWillAskFor) {
  class Announced : public Landscape {
   public:
    using Landscape::Landscape;
    void prepare(Phase phase,
                 const std::vector<Assignment>& assignments) override {
      for (const Assignment& assignment : assignments) {
        EXPECT_EQ(seen.count({phase, assignment}), 0U);
        announced.insert({phase, assignment});
      }
      sizes.push_back(assignments.size());
    }
    std::set<std::pair<Phase, Assignment>> announced;
    std::vector<std::size_t> sizes;
  };
  Announced landscape(
      additive({{0, .01, .20}, {0, .02, .05}, {0, .005, .005}}));
  greedy_search(worked_example(), {}, landscape);
  EXPECT_EQ(landscape.sizes, (std::vector<std::size_t>{2, 5, 5}));
  EXPECT_EQ(landscape.announced, landscape.seen);
}

TEST(GreedySearch, AllPointsLeaveNothingSkipped) {
  Landscape landscape = worked_landscape();
  SearchOptions options;
  options.max_steps = 5;
  EXPECT_TRUE(
      greedy_search(worked_example(), options, landscape).skipped.empty());
}

}  // namespace
}  // namespace aimetpp::mixed
