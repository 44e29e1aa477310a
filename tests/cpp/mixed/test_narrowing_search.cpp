// SPDX-License-Identifier: BSD-3-Clause
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

#include "mixed/narrowing_search.h"
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

// Groups a, b, c of `two_layers` at A16W16 or A8W8. Alone a costs .01, b .02,
// c .03; a and b together .1 more. By hand, in this order:
//   a        100 x 64 + 200 x 256 of 76800 bit-ops   3/4   .99
//   a b      300 x 64                                1/4   .87
//   a c      as a, c is read by no layer             3/4   .96
SearchProblem clash() {
  return two_layers({candidate(16, 16), candidate(8, 8)});
}
Landscape clash_landscape() {
  return Landscape([](Phase, const Assignment& at) {
    const auto is = [&](std::size_t group) { return at[group] == 1 ? 1 : 0; };
    return 1 - .01 * is(0) - .02 * is(1) - .03 * is(2) - .1 * is(0) * is(1);
  });
}

// By hand in support/landscape.h; each move costs the same with the others at
// the baseline. Step 4, b at A8W4, breaks .96.
TEST(NarrowingSearch, NarrowsTheLeastSensitiveFirstUntilTheTargetBreaks) {
  Landscape landscape = worked_landscape();
  const SearchResult result =
      narrowing_search(worked_example(), {.allowed_drop = .04}, landscape);
  ASSERT_EQ(result.sensitivities.size(), 5U);
  const int groups[] = {2, 0, 1, 1, 0};
  const double scores[] = {.995, .99, .98, .95, .80};
  for (std::size_t i = 0; i < 5; ++i) {
    EXPECT_EQ(result.sensitivities[i].group, groups[i]) << i;
    EXPECT_NEAR(result.sensitivities[i].score, scores[i], 1e-12) << i;
  }
  expect_points(result.walk,
                {{1, .995}, {3. / 4, .985}, {1. / 4, .965}, {1. / 6, .935}});
  EXPECT_EQ(result.stop_reason, "complete");
  EXPECT_EQ(result.final_assignment, (Assignment{1, 1, 1}));
  EXPECT_NEAR(result.final_score, .965, 1e-12);
  EXPECT_EQ(result.chosen, 4);  // after the baseline and the all-narrow point
  expect_points({result.points.at(4)}, {{1. / 4, .965}});
  // Full precision, baseline, all-narrow, 5 moves; step 1 is one of them.
  EXPECT_EQ(result.evaluations, 3 + 5 + 3);
}

// AMD Quark never tries the next one.
TEST(NarrowingSearch, GoesOnPastAGroupThatBreaksTheTargetWhenAsked) {
  Landscape stopping = clash_landscape();
  const SearchResult stopped =
      narrowing_search(clash(), {.allowed_drop = .05}, stopping);
  expect_points(stopped.walk, {{3. / 4, .99}, {1. / 4, .87}});
  EXPECT_EQ(stopped.final_assignment, (Assignment{1, 0, 0}));

  Landscape going_on = clash_landscape();
  const SearchResult result = narrowing_search(
      clash(), {.allowed_drop = .05, .at_break = AtBreak::skip}, going_on);
  expect_points(result.walk, {{3. / 4, .99}, {1. / 4, .87}, {3. / 4, .96}});
  EXPECT_EQ(result.final_assignment, (Assignment{1, 0, 1}));
  EXPECT_NEAR(result.final_score, .96, 1e-12);
  EXPECT_EQ(result.evaluations, 3 + 3 + 2);
}

// In the worked example step 4, b at A8W4, breaks .96 and step 5, a at A8W4,
// does on top of b at A8W8: 1 - .2 - .02 - .005.
TEST(NarrowingSearch, GoesOnFromTheLastSettingThatMetTheTarget) {
  Landscape landscape = worked_landscape();
  const SearchResult result = narrowing_search(
      worked_example(), {.allowed_drop = .04, .at_break = AtBreak::skip},
      landscape);
  ASSERT_EQ(result.walk.size(), 5U);
  EXPECT_EQ(result.walk[4].assignment, (Assignment{2, 1, 1}));
  expect_points({result.walk[4]}, {{16000. / 76800, .775}});
  EXPECT_EQ(result.final_assignment, (Assignment{1, 1, 1}));
}

TEST(NarrowingSearch, MeasuresAGroupWithTheOthersAtTheBaseline) {
  Landscape landscape = clash_landscape();
  narrowing_search(clash(), {.allowed_drop = .05}, landscape);
  for (const auto& [phase, assignment] : landscape.seen) {
    EXPECT_EQ(phase, Phase::front);
    const auto off = std::count(assignment.begin(), assignment.end(), kOff);
    EXPECT_TRUE(off == 0 || off == 3) << off;
  }
}

TEST(NarrowingSearch, ScoresEveryStepWithoutATarget) {
  Landscape landscape = worked_landscape();
  const SearchResult result = narrowing_search(worked_example(), {}, landscape);
  expect_points(result.walk, {{1, .995},
                              {3. / 4, .985},
                              {1. / 4, .965},
                              {1. / 6, .935},
                              {1. / 8, .745}});
  EXPECT_EQ(result.final_assignment, (Assignment{2, 2, 1}));
  EXPECT_EQ(result.chosen, 5);
  EXPECT_EQ(result.evaluations, 2 + 5 + 4);
}

// c and a are narrowed; b may not be, but a may go on to A8W4.
TEST(NarrowingSearch, StopsOnceSoManyGroupsAreNarrow) {
  Landscape landscape = worked_landscape();
  const SearchResult result = narrowing_search(
      worked_example(), {.allowed_drop = .3, .max_narrowed = 2}, landscape);
  expect_points(result.walk,
                {{1, .995}, {3. / 4, .985}, {54400. / 76800, .795}});
  EXPECT_EQ(result.final_assignment, (Assignment{2, 0, 1}));
  EXPECT_EQ(result.evaluations, 2 + 5 + 2);  // all-narrow has 3 narrow groups

  Landscape none = worked_landscape();
  EXPECT_EQ(narrowing_search(worked_example(), {.max_narrowed = 0}, none)
                .final_assignment,
            (Assignment{0, 0, 0}));
  EXPECT_NE(error_of(
                [&] {
                  narrowing_search(worked_example(), {.max_narrowed = -1},
                                   none);
                },
                ErrorKind::value)
                .find("at least 0, got -1"),
            std::string::npos);
}

TEST(NarrowingSearch, SaysWhyItStopsEarly) {
  Landscape easy = worked_landscape();
  const SearchResult met =
      narrowing_search(worked_example(), {.allowed_drop = .3}, easy);
  EXPECT_EQ(met.stop_reason, "target_met_by_all_narrow");
  EXPECT_EQ(met.evaluations, 3);
  EXPECT_TRUE(met.walk.empty());
  EXPECT_EQ(met.chosen, 1);
  EXPECT_EQ(met.final_assignment, (Assignment{2, 2, 1}));

  Landscape hard(additive({{.1, .2, .3}, {0, 0, 0}, {0, 0, 0}}));
  const SearchResult missed =
      narrowing_search(worked_example(), {.allowed_drop = .05}, hard);
  EXPECT_EQ(missed.stop_reason, "target_unreachable");
  EXPECT_EQ(missed.evaluations, 2);
  EXPECT_EQ(missed.chosen, kOff);
  EXPECT_EQ(missed.final_assignment, (Assignment{0, 0, 0}));

  Landscape one(additive({{0}, {0}, {0}}));
  EXPECT_EQ(narrowing_search(two_layers({candidate(8, 8)}),
                             {.allowed_drop = .05}, one)
                .stop_reason,
            "nothing_to_narrow");
}

// One model in three formats: a and c take int8, b no more than fp16.
//   c int8 .999, a fp16 .999, b fp16 .998 and a int8 .995 meet .98; b int8
//   would leave .895
TEST(NarrowingSearch, MixesFloatAndIntegerFormats) {
  SearchProblem problem = two_layers({{Precision::fp32(), Precision::fp32()},
                                      {Precision::fp16(), Precision::fp16()},
                                      candidate(8, 8)});
  Landscape landscape(
      additive({{0, .001, .005}, {0, .002, .1}, {0, .003, .001}}));
  const SearchResult result = narrowing_search(
      problem, {.allowed_drop = .02, .at_break = AtBreak::skip}, landscape);
  EXPECT_EQ(result.baseline_candidate, 0);
  EXPECT_EQ(result.final_assignment, (Assignment{2, 1, 2}));
  // 100 x 8 x 8 + 200 x 16 x 16 of 300 x 32 x 32
  EXPECT_NEAR(result.points.at(static_cast<std::size_t>(result.chosen))
                  .relative_bit_ops,
              57600. / 307200, 1e-12);
}

TEST(NarrowingSearch, NamesWhatScoredNotANumber) {
  const auto message_where = [](const Assignment& where) {
    Landscape landscape([&](Phase, const Assignment& assignment) {
      return assignment == where ? std::nan("") : .5;
    });
    return error_of([&] { narrowing_search(worked_example(), {}, landscape); },
                    ErrorKind::runtime);
  };
  EXPECT_NE(message_where({0, 2, 0}).find(
                "the score must be a number, got nan for group b alone "
                "at candidate ((8, int), (4, int))"),
            std::string::npos);
  // Equal scores: b saves most, then a.
  EXPECT_NE(message_where({1, 1, 0}).find("as step 2"), std::string::npos);
  Landscape landscape = worked_landscape();
  EXPECT_NE(
      error_of(
          [&] {
            narrowing_search(
                worked_example(),
                {.allowed_drop = std::numeric_limits<double>::quiet_NaN()},
                landscape);
          },
          ErrorKind::value)
          .find("allowed_drop"),
      std::string::npos);
}

// An earlier run's sensitivities belong to the result of one that needs none.
TEST(NarrowingSearch, RecallsSensitivities) {
  Landscape landscape = worked_landscape();
  narrowing_search(worked_example(), {}, landscape);
  Landscape again = worked_landscape();
  for (const auto& key : landscape.seen) again.cache[key] = .5;
  const SearchResult result =
      narrowing_search(worked_example(), {.allowed_drop = .3}, again);
  EXPECT_EQ(result.stop_reason, "target_met_by_all_narrow");
  EXPECT_EQ(result.sensitivities.size(), 5U);
  EXPECT_EQ(result.evaluations, 3);
}

TEST(NarrowingSearch, ReportsProgress) {
  Landscape landscape = worked_landscape();
  std::vector<std::pair<int, int>> calls;
  narrowing_search(
      worked_example(), {}, landscape,
      [&](Phase, int done, int total) { calls.emplace_back(done, total); });
  ASSERT_EQ(calls.size(), 2U + 5U + 4U);
  for (std::size_t i = 0; i < calls.size(); ++i) {
    EXPECT_EQ(calls[i].first, static_cast<int>(i));
    EXPECT_GT(calls[i].second, calls[i].first);
  }
}

// The loop of the tutorial, written down plainly, over random landscapes in
// which groups also hurt each other.
TEST(NarrowingSearch, AgreesWithAPlainLoop) {
  std::mt19937 rng(11);
  std::uniform_real_distribution<double> uniform(0, 1);
  for (int round = 0; round < 300; ++round) {
    double alone[3];
    double both[3][3];
    for (int i = 0; i < 3; ++i) {
      alone[i] = .1 * uniform(rng);
      for (int j = 0; j < 3; ++j) both[i][j] = .2 * (uniform(rng) - .3);
    }
    const auto loss = [&](const Assignment& at) {
      double total = 0;
      for (std::size_t i = 0; i < 3; ++i) {
        if (at[i] != 1) continue;
        total += alone[i];
        for (std::size_t j = 0; j < i; ++j)
          total += at[j] == 1 ? both[i][j] : 0;
      }
      return total;
    };
    const double target = .3 * uniform(rng);
    std::vector<int> order = {0, 1, 2};
    std::sort(order.begin(), order.end(),
              [&](int i, int j) { return alone[i] < alone[j]; });
    for (const AtBreak at_break : {AtBreak::stop, AtBreak::skip}) {
      Assignment expected = {0, 0, 0};
      for (const int group : order) {
        Assignment next = expected;
        next[static_cast<std::size_t>(group)] = 1;
        if (loss(next) <= target) {
          expected = next;
        } else if (at_break == AtBreak::stop) {
          break;
        }
      }
      if (loss({1, 1, 1}) <= target) expected = {1, 1, 1};
      Landscape landscape(
          [&](Phase, const Assignment& at) { return -loss(at); });
      const SearchResult result = narrowing_search(
          clash(), {.allowed_drop = target, .at_break = at_break}, landscape);
      EXPECT_EQ(result.final_assignment, expected) << round;
      EXPECT_LE(result.evaluations, 3 + 3 + 2);
    }
  }
}

}  // namespace
}  // namespace aimetpp::mixed
