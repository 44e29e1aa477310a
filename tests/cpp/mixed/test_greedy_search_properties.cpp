// SPDX-License-Identifier: BSD-3-Clause
// Random landscapes: the search against a slow and obvious one, and what holds
// for every result.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>

#include "mixed/greedy_search.h"

namespace aimetpp::mixed {
namespace {

// One random problem with its landscape: every bit that a group loses costs
// some score, so that scores fall along any walk; `noise` makes them bumpy.
struct Case {
  SearchProblem problem;
  std::vector<double> activation_damage;  // by group, per bit lost below 16
  std::vector<double> param_damage;
  double noise = 0;

  [[nodiscard]] double score(const Assignment& assignment) const {
    double total = 10;
    std::size_t hash = 1;
    for (std::size_t g = 0; g < assignment.size(); ++g) {
      hash = hash * 31 + static_cast<std::size_t>(assignment[g] + 2);
      if (assignment[g] == kOff) continue;
      const SearchGroup& group = problem.groups[g];
      const Candidate& at =
          problem.candidates[static_cast<std::size_t>(assignment[g])];
      if (!group.activation_quantizers.empty()) {
        total -= activation_damage[g] * (16 - at.activation.bitwidth());
      }
      if (!group.param_quantizers.empty()) {
        total -= param_damage[g] * (16 - at.param.bitwidth());
      }
    }
    return total + noise * static_cast<double>(hash * 2654435761U % 1000) / 1e3;
  }

  [[nodiscard]] double bit_ops(const Assignment& assignment) const {
    std::vector<int> bits(static_cast<std::size_t>(problem.num_quantizers));
    for (std::size_t g = 0; g < assignment.size(); ++g) {
      const Candidate& at =
          problem.candidates[static_cast<std::size_t>(assignment[g])];
      for (const int q : problem.groups[g].activation_quantizers) {
        bits[static_cast<std::size_t>(q)] = at.activation.bitwidth();
      }
      for (const int q : problem.groups[g].param_quantizers) {
        bits[static_cast<std::size_t>(q)] = at.param.bitwidth();
      }
    }
    double total = 0;
    for (const CostTerm& term : problem.cost_model.terms) {
      total += static_cast<double>(term.macs) *
               bits[static_cast<std::size_t>(term.lhs)] *
               bits[static_cast<std::size_t>(term.rhs)];
    }
    return total;
  }
};

Case random_case(std::mt19937& rng, double noise) {
  const auto pick = [&rng](int low, int high) {
    return std::uniform_int_distribution<int>(low, high)(rng);
  };
  Case made;
  made.noise = noise;
  SearchProblem& problem = made.problem;
  problem.candidates = {{Precision::integer(16), Precision::integer(16)}};
  for (int i = pick(0, 3); i > 0; --i) {
    const int bits[] = {4, 8, 16};
    problem.candidates.push_back({Precision::integer(bits[pick(0, 2)]),
                                  Precision::integer(bits[pick(0, 2)])});
  }
  std::shuffle(problem.candidates.begin(), problem.candidates.end(), rng);
  const int common = static_cast<int>(
      std::find(problem.candidates.begin(), problem.candidates.end(),
                Candidate{Precision::integer(16), Precision::integer(16)}) -
      problem.candidates.begin());
  int quantizer = 0;
  for (int g = pick(1, 5); g > 0; --g) {
    SearchGroup group{"g" + std::to_string(g), {}, {}, {}};
    const int kind = pick(0, 4);
    if (kind != 0) group.activation_quantizers = {quantizer++};
    if (kind != 1) group.param_quantizers = {quantizer++};
    if (kind == 4) group.param_quantizers.push_back(quantizer++);
    for (int c = 0; c < static_cast<int>(problem.candidates.size()); ++c) {
      if (c == common || pick(0, 3) > 0) group.candidates.push_back(c);
    }
    problem.groups.push_back(group);
    made.activation_damage.push_back(pick(1, 1000) / 1e5);
    made.param_damage.push_back(pick(1, 1000) / 1e5);
  }
  problem.num_quantizers = quantizer;
  problem.fixed_precisions.assign(static_cast<std::size_t>(quantizer),
                                  Precision::fp32());
  for (int i = pick(1, 6); i > 0; --i) {
    problem.cost_model.terms.push_back(
        {pick(1, 500), pick(0, quantizer - 1), pick(0, quantizer - 1)});
  }
  return made;
}

class CaseEvaluator : public Evaluator {
 public:
  explicit CaseEvaluator(const Case& made) : made_(made) {}
  double evaluate(Phase phase, const Assignment& assignment) override {
    EXPECT_TRUE(seen.insert({phase, assignment}).second);
    return made_.score(assignment);
  }
  std::set<std::pair<Phase, Assignment>> seen;

 private:
  const Case& made_;
};

// What a candidate means to a group: bits of its activation and its params,
// 0 for what it has not.
std::pair<int, int> effect(const Case& made, int group, int candidate) {
  const auto& members = made.problem.groups[static_cast<std::size_t>(group)];
  const Candidate& at =
      made.problem.candidates[static_cast<std::size_t>(candidate)];
  return {members.activation_quantizers.empty() ? 0 : at.activation.bitwidth(),
          members.param_quantizers.empty() ? 0 : at.param.bitwidth()};
}

bool narrower(std::pair<int, int> a, std::pair<int, int> b) {
  return a != b && a.first <= b.first && a.second <= b.second;
}

// The walk by repeated selection of the best move left, from the definition.
std::vector<Assignment> reference_walk(const Case& made, int baseline) {
  struct Item {
    double score;
    int bits;
    double saving;
    int group;
    int candidate;
  };
  const int num_groups = static_cast<int>(made.problem.groups.size());
  const Assignment start(static_cast<std::size_t>(num_groups), baseline);
  std::vector<Item> items;
  for (int g = 0; g < num_groups; ++g) {
    std::set<std::pair<int, int>> effects;
    for (int c = 0; c < static_cast<int>(made.problem.candidates.size()); ++c) {
      const auto& all =
          made.problem.groups[static_cast<std::size_t>(g)].candidates;
      if (std::count(all.begin(), all.end(), c) == 0) continue;
      if (!narrower(effect(made, g, c), effect(made, g, baseline))) continue;
      if (!effects.insert(effect(made, g, c)).second) continue;
      Assignment alone(static_cast<std::size_t>(num_groups), kOff);
      Assignment changed = start;
      alone[static_cast<std::size_t>(g)] = c;
      changed[static_cast<std::size_t>(g)] = c;
      const Candidate& at =
          made.problem.candidates[static_cast<std::size_t>(c)];
      items.push_back({made.score(alone),
                       at.activation.bitwidth() + at.param.bitwidth(),
                       made.bit_ops(start) - made.bit_ops(changed), g, c});
    }
  }
  std::vector<Assignment> walk;
  Assignment current = start;
  while (!items.empty()) {
    std::size_t best = 0;
    for (std::size_t i = 1; i < items.size(); ++i) {
      const Item& a = items[i];
      const Item& b = items[best];
      if (a.score != b.score) {
        if (a.score > b.score) best = i;
      } else if (a.bits != b.bits) {
        if (a.bits > b.bits) best = i;
      } else if (a.saving > b.saving) {
        best = i;  // of equal savings the earlier group stays
      }
    }
    const Item item = items[best];
    items.erase(items.begin() + static_cast<std::ptrdiff_t>(best));
    int& slot = current[static_cast<std::size_t>(item.group)];
    if (!narrower(effect(made, item.group, item.candidate),
                  effect(made, item.group, slot))) {
      continue;
    }
    slot = item.candidate;
    walk.push_back(current);
  }
  return walk;
}

void expect_sound(const Case& made, const SearchResult& result,
                  std::optional<double> drop) {
  const double base = made.bit_ops(result.points[0].assignment);
  const FrontPoint* chosen =
      &result.points[static_cast<std::size_t>(std::max(result.chosen, 0))];
  EXPECT_EQ(result.final_assignment, chosen->assignment);
  EXPECT_EQ(result.final_score, chosen->score);
  for (const FrontPoint& point : result.points) {
    EXPECT_NEAR(point.relative_bit_ops, made.bit_ops(point.assignment) / base,
                1e-12);
    EXPECT_LE(point.relative_bit_ops, 1);
    EXPECT_EQ(point.score, made.score(point.assignment));
    EXPECT_EQ(point.dominated,
              std::any_of(result.points.begin(), result.points.end(),
                          [&point](const FrontPoint& other) {
                            const bool as_good = other.score >= point.score &&
                                                 other.relative_bit_ops <=
                                                     point.relative_bit_ops;
                            const bool same = other.score == point.score &&
                                              other.relative_bit_ops ==
                                                  point.relative_bit_ops;
                            return as_good && !same;
                          }));
    for (std::size_t g = 0; g < point.assignment.size(); ++g) {
      const auto& supported = made.problem.groups[g].candidates;
      EXPECT_EQ(
          std::count(supported.begin(), supported.end(), point.assignment[g]),
          1);
    }
    const double target = drop ? result.fp32_score - *drop - 1e-9 : -1e9;
    if (result.stop_reason != "target_unreachable" && point.score >= target) {
      EXPECT_LE(chosen->relative_bit_ops, point.relative_bit_ops);
    }
  }
}

constexpr SearchAlgo kAlgos[] = {SearchAlgo::brute_force,
                                 SearchAlgo::interpolation, SearchAlgo::binary};

TEST(GreedySearchProperties, TheProfileIsTheReferenceWalk) {
  std::mt19937 rng(7);
  for (int round = 0; round < 400; ++round) {
    const Case made = random_case(rng, round % 2 == 0 ? 0 : .2);
    for (const SearchAlgo algo : kAlgos) {
      CaseEvaluator evaluator(made);
      const SearchResult result =
          greedy_search(made.problem, {std::nullopt, algo}, evaluator);
      const auto walk = reference_walk(made, result.baseline_candidate);
      ASSERT_EQ(result.walk.size(), walk.size()) << round;
      for (std::size_t i = 0; i < walk.size(); ++i) {
        EXPECT_EQ(result.walk[i].assignment, walk[i]) << round;
      }
      EXPECT_EQ(static_cast<std::size_t>(result.evaluations),
                evaluator.seen.size());
      expect_sound(made, result, std::nullopt);
    }
  }
}

TEST(GreedySearchProperties, EveryAlgorithmEndsAtTheSameCostOnFallingScores) {
  std::mt19937 rng(11);
  int searched = 0;
  for (int round = 0; round < 400; ++round) {
    const Case made = random_case(rng, 0);
    CaseEvaluator profile(made);
    const SearchResult all = greedy_search(made.problem, {}, profile);
    const double span = all.fp32_score - all.points.back().score;
    const double drop =
        span * std::uniform_real_distribution<double>(0, 1)(rng) + 1e-6;
    // Falling scores: the last step of the walk that meets the target is as
    // cheap as any. Groups without a chain end apart from the all-narrow point.
    double cheapest = 1;
    for (const FrontPoint& point : all.points) {
      if (point.score >= all.fp32_score - drop) {
        cheapest = std::min(cheapest, point.relative_bit_ops);
      }
    }
    for (const SearchAlgo algo : kAlgos) {
      CaseEvaluator evaluator(made);
      const SearchResult result =
          greedy_search(made.problem, {drop, algo}, evaluator);
      expect_sound(made, result, drop);
      if (result.stop_reason != "complete") continue;
      ++searched;
      EXPECT_DOUBLE_EQ(
          result.points[static_cast<std::size_t>(std::max(result.chosen, 0))]
              .relative_bit_ops,
          cheapest)
          << round;
      EXPECT_LE(result.evaluations, all.evaluations + 1);
    }
  }
  EXPECT_GT(searched, 300);
}

TEST(GreedySearchProperties, BumpyScoresGiveSoundResults) {
  std::mt19937 rng(13);
  for (int round = 0; round < 400; ++round) {
    const Case made = random_case(rng, .3);
    const double drop = std::uniform_real_distribution<double>(0, .5)(rng);
    for (const SearchAlgo algo : kAlgos) {
      CaseEvaluator evaluator(made);
      expect_sound(made, greedy_search(made.problem, {drop, algo}, evaluator),
                   drop);
    }
  }
}

}  // namespace
}  // namespace aimetpp::mixed
