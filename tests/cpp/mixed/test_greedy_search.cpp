// SPDX-License-Identifier: BSD-3-Clause
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <tuple>

#include "mixed/greedy_search.h"
#include "support/landscape.h"

namespace aimetpp::mixed {
namespace {

using aimetpp::testing::additive;
using aimetpp::testing::candidate;
using aimetpp::testing::costs_and_scores;
using aimetpp::testing::error_of;
using aimetpp::testing::expect_points;
using aimetpp::testing::Landscape;
using aimetpp::testing::ScoreFn;
using aimetpp::testing::two_layers;
using aimetpp::testing::worked_example;
using aimetpp::testing::worked_landscape;

constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr SearchAlgo kAlgos[] = {SearchAlgo::brute_force,
                                 SearchAlgo::interpolation, SearchAlgo::binary};

TEST(GreedySearch, SortsSensitivitiesOfEveryNarrowingMove) {
  Landscape landscape = worked_landscape();
  const SearchResult result = greedy_search(worked_example(), {}, landscape);
  ASSERT_EQ(result.sensitivities.size(), 5U);
  const int groups[] = {2, 0, 1, 1, 0};
  const int candidates[] = {1, 1, 1, 2, 2};
  const double scores[] = {.995, .99, .98, .95, .80};
  const double reductions[] = {0, 19200, 38400, 44800, 22400};
  for (std::size_t i = 0; i < 5; ++i) {
    EXPECT_EQ(result.sensitivities[i].group, groups[i]) << i;
    EXPECT_EQ(result.sensitivities[i].candidate, candidates[i]) << i;
    EXPECT_NEAR(result.sensitivities[i].score, scores[i], 1e-12) << i;
    EXPECT_DOUBLE_EQ(result.sensitivities[i].bit_ops_reduction, reductions[i]);
  }
}

// Equal scores: more bits first, then the larger saving, then the earlier
// group.
TEST(GreedySearch, BreaksTiesOfSensitivity) {
  Landscape landscape(additive({{0, 0, 0}, {0, 0, 0}, {0, 0, 0}}));
  const SearchResult result = greedy_search(worked_example(), {}, landscape);
  std::vector<std::pair<int, int>> order;
  for (const Sensitivity& item : result.sensitivities) {
    order.emplace_back(item.group, item.candidate);
  }
  const std::vector<std::pair<int, int>> expected = {
      {1, 1}, {0, 1}, {2, 1}, {1, 2}, {0, 2}};
  EXPECT_EQ(order, expected);
}

// AIMET: one point only, unless the search is BruteForce.
TEST(GreedySearch, GivesTheWholeProfileWithoutAllowedDrop) {
  for (const SearchAlgo algo : kAlgos) {
    Landscape landscape = worked_landscape();
    const SearchResult result =
        greedy_search(worked_example(), {std::nullopt, algo}, landscape);
    expect_points(result.walk, {{1, .995},
                                {3. / 4, .985},
                                {1. / 4, .965},
                                {1. / 6, .935},
                                {1. / 8, .745}});
    EXPECT_EQ(result.stop_reason, "complete");
    EXPECT_EQ(result.evaluations, 2 + 5 + 5);
    ASSERT_EQ(result.points.size(), 6U);  // the baseline and the walk
    EXPECT_EQ(result.chosen, 5);          // the cheapest of all
    EXPECT_EQ(result.final_assignment, (Assignment{2, 2, 1}));
  }
}

TEST(GreedySearch, BinaryHalvesToTheLastStepWithinTheDrop) {
  Landscape landscape = worked_landscape();
  const SearchResult result =
      greedy_search(worked_example(), {.04, SearchAlgo::binary}, landscape);
  // Full precision, baseline, all-narrow (step 5), 5 sensitivities, then steps
  // 2 (meets .96), 3 (meets), 4 (misses).
  EXPECT_EQ(result.evaluations, 3 + 5 + 3);
  expect_points(
      result.walk,
      {{3. / 4, .985}, {1. / 4, .965}, {1. / 6, .935}, {1. / 8, .745}});
  expect_points({result.points.at(static_cast<std::size_t>(result.chosen))},
                {{1. / 4, .965}});
  EXPECT_NEAR(result.final_score, .965, 1e-12);
  EXPECT_EQ(result.final_assignment, (Assignment{1, 1, 1}));
  EXPECT_EQ(result.stop_reason, "complete");
}

TEST(GreedySearch, BruteForceWalksUntilTheScoreFallsBelowTheTarget) {
  Landscape landscape = worked_landscape();
  const SearchResult result = greedy_search(
      worked_example(), {.04, SearchAlgo::brute_force}, landscape);
  EXPECT_EQ(result.evaluations, 3 + 5 + 4);
  EXPECT_EQ(result.walk.size(), 5U);  // the last was evaluated as all-narrow
  EXPECT_EQ(result.final_assignment, (Assignment{1, 1, 1}));
}

// Baseline 1, step 5 .745: .04 / .255 of 5 steps is below 1, so step 1; that
// leaves more than half, so the middle, step 3 (.965); .005 / .22 of the last
// two: step 4.
TEST(GreedySearch, InterpolationGuessesByTheScore) {
  Landscape landscape = worked_landscape();
  const SearchResult result = greedy_search(
      worked_example(), {.04, SearchAlgo::interpolation}, landscape);
  EXPECT_EQ(result.evaluations, 3 + 5 + 3);
  EXPECT_EQ(result.final_assignment, (Assignment{1, 1, 1}));
}

// .3 of a score of 1: .7 exactly, though 1 - .3 is not .7 in binary.
TEST(GreedySearch, AScoreEqualToTheTargetMeetsIt) {
  for (const auto& [fp32, drop, score] :
       {std::tuple{.8, .1, .7}, std::tuple{1., .3, .7},
        std::tuple{.9, .2, .7}}) {
    Landscape landscape(
        [fp32 = fp32, score = score](Phase, const Assignment& a) {
          return a == Assignment{1, 1, 1} ? score : fp32;
        });
    const SearchResult result =
        greedy_search(two_layers({candidate(16, 16), candidate(8, 8)}),
                      {drop, SearchAlgo::binary}, landscape);
    EXPECT_EQ(result.stop_reason, "target_met_by_all_narrow") << fp32;
  }
}

TEST(GreedySearch, MeasuresAGroupWithEveryOtherGroupOff) {
  Landscape landscape = worked_landscape();
  greedy_search(worked_example(), {}, landscape);
  for (const auto& [phase, assignment] : landscape.seen) {
    if (phase != Phase::sensitivity) continue;
    EXPECT_EQ(std::count(assignment.begin(), assignment.end(), kOff), 2);
  }
}

// AIMET returns nothing in both cases.
TEST(GreedySearch, SaysWhyItStopsEarly) {
  Landscape easy = worked_landscape();
  const SearchResult met =
      greedy_search(worked_example(), {.3, SearchAlgo::binary}, easy);
  EXPECT_EQ(met.stop_reason, "target_met_by_all_narrow");
  EXPECT_EQ(met.evaluations, 3);
  EXPECT_TRUE(met.sensitivities.empty());
  EXPECT_TRUE(met.walk.empty());
  ASSERT_EQ(met.points.size(), 2U);
  EXPECT_EQ(met.chosen, 1);
  EXPECT_EQ(met.points[1].group, kOff);
  EXPECT_EQ(met.final_assignment, (Assignment{2, 2, 1}));

  Landscape hard(additive({{.1, .2, .3}, {0, 0, 0}, {0, 0, 0}}));
  const SearchResult missed =
      greedy_search(worked_example(), {.05, SearchAlgo::binary}, hard);
  EXPECT_EQ(missed.stop_reason, "target_unreachable");
  EXPECT_EQ(missed.evaluations, 2);
  EXPECT_EQ(missed.chosen, kOff);
  EXPECT_NEAR(missed.final_score, .9, 1e-12);
  EXPECT_EQ(missed.final_assignment, (Assignment{0, 0, 0}));

  // AIMET: IndexError.
  Landscape one(additive({{0}, {0}, {0}}));
  const SearchResult single = greedy_search(two_layers({candidate(8, 8)}),
                                            {.05, SearchAlgo::binary}, one);
  EXPECT_EQ(single.stop_reason, "nothing_to_narrow");
  EXPECT_EQ(single.chosen, kOff);
  EXPECT_EQ(single.final_assignment, (Assignment{0, 0, 0}));
}

// AIMET accepts it and narrows layers all the same.
TEST(GreedySearch, NamesWhatScoredNotANumber) {
  const auto message_where = [](Phase phase, const Assignment& where) {
    Landscape landscape([&](Phase asked, const Assignment& assignment) {
      return asked == phase && assignment == where ? std::nan("") : .5;
    });
    return error_of([&] { greedy_search(worked_example(), {}, landscape); },
                    ErrorKind::runtime);
  };
  EXPECT_NE(message_where(Phase::front, {kOff, kOff, kOff})
                .find("phase-2 score must be a number, got nan for the model "
                      "in full precision"),
            std::string::npos);
  EXPECT_NE(message_where(Phase::front, {0, 0, 0})
                .find("baseline candidate ((16, int), (16, int))"),
            std::string::npos);
  const std::string alone = message_where(Phase::sensitivity, {kOff, 2, kOff});
  EXPECT_NE(alone.find("phase-1"), std::string::npos) << alone;
  EXPECT_NE(alone.find("group b alone at candidate ((8, int), (4, int))"),
            std::string::npos)
      << alone;
  const std::string step = message_where(Phase::front, {0, 1, 0});
  EXPECT_NE(step.find("step 1 of the walk"), std::string::npos) << step;
}

// A perfect match has an infinite signal-to-noise ratio.
TEST(GreedySearch, AcceptsInfiniteScores) {
  const ScoreFn score = [](Phase, const Assignment& assignment) {
    int narrow = 0;
    for (const int c : assignment) narrow += c > 0 ? c : 0;
    return narrow == 0 ? kInf : 40.0 - narrow;
  };
  for (const SearchAlgo algo : kAlgos) {
    Landscape profile(score);
    const SearchResult result =
        greedy_search(worked_example(), {std::nullopt, algo}, profile);
    EXPECT_EQ(result.walk.size(), 5U);
    EXPECT_FALSE(result.points[0].dominated);

    Landscape any_drop(score);
    EXPECT_EQ(
        greedy_search(worked_example(), {kInf, algo}, any_drop).stop_reason,
        "target_met_by_all_narrow");
    Landscape lossless(score);
    const SearchResult stays =
        greedy_search(worked_example(), {3.0, algo}, lossless);
    EXPECT_EQ(stays.stop_reason, "complete");
    EXPECT_EQ(stays.chosen, kOff);
  }
}

// The same points from the other end; AIMET's bit-ops are relative to the
// lowest candidate then, and without a drop it ends at its first step.
TEST(GreedySearch, ReverseRaisesGroupsUntilTheTargetHolds) {
  Landscape profile = worked_landscape();
  const SearchResult all = greedy_search(
      worked_example(), {std::nullopt, SearchAlgo::binary, /*reverse=*/true},
      profile);
  expect_points(all.walk, {{1. / 8, .745},
                           {1. / 6, .935},
                           {1. / 4, .965},
                           {3. / 4, .985},
                           {1, .995}});
  const int groups[] = {0, 0, 1, 1, 0};
  const int candidates[] = {2, 1, 1, 0, 0};
  for (std::size_t i = 0; i < 5; ++i) {
    EXPECT_EQ(all.walk[i].group, groups[i]) << i;
    EXPECT_EQ(all.walk[i].candidate, candidates[i]) << i;
  }
  EXPECT_EQ(all.final_assignment, (Assignment{2, 2, 1}));
  for (const SearchAlgo algo : kAlgos) {
    Landscape landscape = worked_landscape();
    const SearchResult result =
        greedy_search(worked_example(), {.04, algo, true}, landscape);
    EXPECT_EQ(result.final_assignment, (Assignment{1, 1, 1}));
    EXPECT_NEAR(result.final_score, .965, 1e-12);
  }
  Landscape brute = worked_landscape();
  const SearchResult raised = greedy_search(
      worked_example(), {.04, SearchAlgo::brute_force, true}, brute);
  // All-narrow is the walk's start; then 1/6 misses and 1/4 meets.
  EXPECT_EQ(raised.evaluations, 3 + 5 + 2);
  expect_points(raised.walk, {{1. / 8, .745}, {1. / 6, .935}, {1. / 4, .965}});

  Landscape hard(additive({{.1, .2, .3}, {0, 0, 0}, {0, 0, 0}}));
  const SearchResult missed = greedy_search(
      worked_example(), {.05, SearchAlgo::brute_force, true}, hard);
  EXPECT_EQ(missed.stop_reason, "target_unreachable");
  EXPECT_EQ(missed.final_assignment, (Assignment{0, 0, 0}));
}

// Only the baseline meets the target: the walk is raised to its end.
TEST(GreedySearch, ReverseMayEndAtTheBaseline) {
  const ScoreFn score = [](Phase, const Assignment& assignment) {
    const bool off = assignment == Assignment{kOff, kOff, kOff};
    return off || assignment == Assignment{0, 0, 0} ? 1.0 : 0.0;
  };
  Landscape landscape(score);
  const SearchResult kept = greedy_search(
      worked_example(), {.5, SearchAlgo::brute_force, true}, landscape);
  EXPECT_EQ(kept.stop_reason, "complete");
  EXPECT_EQ(kept.chosen, kOff);
  EXPECT_EQ(kept.walk.size(), 5U);
}

// Scores along the walk: .9, .5, .8, .3; target .75.
TEST(GreedySearch, ChoosesTheCheapestEvaluatedPointOnABumpyWalk) {
  SearchProblem problem;
  problem.candidates = {candidate(16, 16), candidate(8, 8)};
  const double walk[] = {1, .9, .5, .8, .3};
  for (int g = 0; g < 4; ++g) {
    problem.groups.push_back(
        {"g" + std::to_string(g), {2 * g}, {2 * g + 1}, {0, 1}});
    problem.cost_model.terms.push_back({100, 2 * g, 2 * g + 1});
  }
  problem.num_quantizers = 8;
  problem.fixed_precisions.assign(8, Precision::fp32());
  const ScoreFn bumpy = [&walk](Phase phase, const Assignment& assignment) {
    if (phase == Phase::sensitivity) {  // the order of the groups
      return -static_cast<double>(
          std::find(assignment.begin(), assignment.end(), 1) -
          assignment.begin());
    }
    return walk[std::count(assignment.begin(), assignment.end(), 1)];
  };
  Landscape brute(bumpy);
  EXPECT_NEAR(
      greedy_search(problem, {.25, SearchAlgo::brute_force}, brute).final_score,
      .9, 1e-12);

  // What an earlier run has left counts: the third step meets the target too.
  Landscape profile(bumpy);
  const SearchResult all = greedy_search(problem, {}, profile);
  EXPECT_EQ(all.walk.size(), 4U);
  EXPECT_TRUE(all.walk[1].dominated);
  EXPECT_FALSE(all.walk[2].dominated);
  Landscape again(bumpy);
  for (const auto& key : profile.seen) {
    again.cache[key] = bumpy(key.first, key.second);
  }
  const SearchResult second =
      greedy_search(problem, {.25, SearchAlgo::brute_force}, again);
  EXPECT_NEAR(second.final_score, .8, 1e-12);
  EXPECT_EQ(costs_and_scores(second.walk), costs_and_scores(all.walk));
}

// AIMET's guide: the list is not modified by a second run with another drop.
TEST(GreedySearch, ShowsKnownPointsHoweverItEnds) {
  Landscape first = worked_landscape();
  const SearchResult all = greedy_search(worked_example(), {}, first);
  const ScoreFn score =
      additive({{0, .01, .20}, {0, .02, .05}, {0, .005, .005}});
  for (const double drop : {-.5, 0.0, .04, .9}) {
    Landscape second = worked_landscape();
    for (const auto& key : first.seen) {
      second.cache[key] = score(key.first, key.second);
    }
    const SearchResult result =
        greedy_search(worked_example(), {drop, SearchAlgo::binary}, second);
    EXPECT_EQ(costs_and_scores(result.walk), costs_and_scores(all.walk));
    EXPECT_EQ(result.sensitivities.size(), 5U);
    EXPECT_EQ(result.chosen == kOff, drop <= 0) << drop;
  }
}

TEST(GreedySearch, ReportsProgressBeforeEachEvaluation) {
  Landscape landscape = worked_landscape();
  int calls = 0;
  const SearchResult result =
      greedy_search(worked_example(), {.04, SearchAlgo::binary}, landscape,
                    [&](Phase phase, int done, int total) {
                      EXPECT_LT(done, total);
                      if (phase == Phase::sensitivity) {
                        EXPECT_EQ(total, 5);
                      }
                      ++calls;
                    });
  EXPECT_EQ(calls, result.evaluations);
}

}  // namespace
}  // namespace aimetpp::mixed
