// SPDX-License-Identifier: BSD-3-Clause
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <random>

#include "mixed/convert_ops.h"
#include "support/landscape.h"

namespace aimetpp::mixed {
namespace {

using aimetpp::testing::candidate;
using aimetpp::testing::error_of;

constexpr double kInf = std::numeric_limits<double>::infinity();

// Layers in a row: group g has activation 2g and weight 2g + 1; its result is
// the activation of group g + 1.
SearchProblem chain(const std::vector<std::int64_t>& macs,
                    std::vector<Candidate> candidates) {
  SearchProblem problem;
  problem.candidates = std::move(candidates);
  std::vector<int> all;
  for (std::size_t c = 0; c < problem.candidates.size(); ++c) {
    all.push_back(static_cast<int>(c));
  }
  for (std::size_t g = 0; g < macs.size(); ++g) {
    const int first = 2 * static_cast<int>(g);
    problem.groups.push_back(
        {"g" + std::to_string(g), {first}, {first + 1}, all});
    problem.cost_model.terms.push_back({macs[g], first, first + 1});
  }
  problem.num_quantizers = 2 * static_cast<int>(macs.size());
  problem.fixed_precisions.assign(
      static_cast<std::size_t>(problem.num_quantizers), Precision::fp32());
  return problem;
}

std::vector<ConvertPoint> chain_points(
    const std::vector<std::int64_t>& elements) {
  std::vector<ConvertPoint> points;
  for (std::size_t i = 0; i < elements.size(); ++i) {
    const int from = 2 * static_cast<int>(i);
    points.push_back({"t" + std::to_string(i), elements[i], from, {from + 2}});
  }
  return points;
}

// A16, A8, A16, A8 with weights of 8 bits; MACs 10, 1, 10, 4; 100 elements
// between neighbours. One convert op: 100 x (2 + 1) bytes. By hand:
//   alpha 1        as it is: 3 convert ops    bit-ops 128 x 20 + 64 x 5 = 2880
//   alpha .7, .4   raise the second: 1 left   2880 + 64
//   alpha 0        raise the fourth, too      3200
TEST(ConvertOps, RaisesTheCheapestGroupsByHand) {
  const SearchProblem problem =
      chain({10, 1, 10, 4}, {candidate(16, 8), candidate(8, 8)});
  const auto points = chain_points({100, 100, 100});
  const auto solutions =
      reduce_convert_ops(problem, points, {}, {0, 1, 0, 1}, {1, .7, .4, 0});
  ASSERT_EQ(solutions.size(), 4U);
  const std::vector<Assignment> expected = {
      {0, 1, 0, 1}, {0, 0, 0, 1}, {0, 0, 0, 1}, {0, 0, 0, 0}};
  const double converts[] = {900, 300, 300, 0};
  const double costs[] = {2880. / 3200, 2944. / 3200, 2944. / 3200, 1};
  for (std::size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(solutions[i].assignment, expected[i]) << i;
    EXPECT_DOUBLE_EQ(solutions[i].convert_cost, converts[i]) << i;
    EXPECT_NEAR(solutions[i].relative_cost, costs[i], 1e-12) << i;
    EXPECT_DOUBLE_EQ(solutions[i].gap, 0);
    EXPECT_TRUE(solutions[i].within_budget);
  }
}

TEST(ConvertOps, LeavesAUniformAssignmentAlone) {
  const SearchProblem problem =
      chain({10, 1}, {candidate(16, 8), candidate(8, 8)});
  for (const auto& solution : reduce_convert_ops(problem, chain_points({100}),
                                                 {}, {1, 1}, {0, .5, 1})) {
    EXPECT_EQ(solution.assignment, (Assignment{1, 1}));
    EXPECT_DOUBLE_EQ(solution.convert_cost, 0);
  }
}

// The second group knows 8 bits only, so its convert ops stay.
TEST(ConvertOps, SaysWhereABudgetCannotBeMet) {
  SearchProblem problem =
      chain({10, 1}, {candidate(16, 8), candidate(8, 8), candidate(16, 16)});
  problem.groups[1].candidates = {1};
  problem.groups[0].candidates = {0, 1};
  const auto solutions =
      reduce_convert_ops(problem, chain_points({100}), {}, {0, 1}, {0, 1});
  EXPECT_FALSE(solutions[0].within_budget);
  EXPECT_EQ(solutions[0].assignment, (Assignment{0, 1}));
  EXPECT_DOUBLE_EQ(solutions[0].convert_cost, 300);
  EXPECT_TRUE(solutions[1].within_budget);
}

TEST(ConvertOps, ReadersOfOnePrecisionShareAConvertOp) {
  const std::vector<ConvertPoint> points = {{"t", 10, 0, {1, 2, 3}}};
  const auto int8 = Precision::integer(8);
  const auto int16 = Precision::integer(16);
  const auto fp16 = Precision::fp16();
  EXPECT_DOUBLE_EQ(convert_cost(points, {int8, int16, int16, int8}, {}), 30);
  EXPECT_DOUBLE_EQ(convert_cost(points, {int8, int16, int16, fp16}, {}), 60);
  EXPECT_DOUBLE_EQ(convert_cost(points, {int16, int16, int16, fp16}, {}), 40);
  const ConvertTable table = {{{int8, int16}, .5}};
  EXPECT_DOUBLE_EQ(convert_cost(points, {int8, int16, int16, int8}, table), 5);
}

TEST(ConvertOps, NamesWhatATableLacks) {
  const std::vector<ConvertPoint> points = {{"conv1", 10, 0, {1}}};
  const auto int8 = Precision::integer(8);
  const auto int16 = Precision::integer(16);
  const auto message = [&](const ConvertTable& table) {
    return error_of([&] { convert_cost(points, {int8, int16}, table); },
                    ErrorKind::value);
  };
  EXPECT_NE(message({{{int16, int8}, 1}})
                .find("(int8, int16) is required, for the output of conv1"),
            std::string::npos);
  EXPECT_NE(message({{{int8, int16}, -1}}).find("not negative, got -1"),
            std::string::npos);
}

TEST(ConvertOps, RefusesAnAlphaOutsideTheUnitInterval) {
  const SearchProblem problem = chain({1}, {candidate(8, 8)});
  EXPECT_NE(error_of([&] { reduce_convert_ops(problem, {}, {}, {0}, {1.2}); },
                     ErrorKind::value)
                .find("alpha must be between 0 and 1, got 1.2"),
            std::string::npos);
}

// A random network: each group reads one or two earlier ones, one of which has
// many readers; some multiply two activations.
struct Net {
  SearchProblem problem;
  std::vector<ConvertPoint> points;
  Assignment start;
};

Net random_net(std::mt19937& random, const std::vector<Candidate>& candidates) {
  const auto below = [&](std::size_t n) {
    return static_cast<int>(random() % n);
  };
  Net net;
  const std::size_t size = 6;
  std::vector<std::int64_t> macs;
  for (std::size_t g = 0; g < size; ++g) macs.push_back(1 + below(50));
  net.problem = chain(macs, candidates);
  std::vector<std::vector<int>> readers(size);
  for (std::size_t g = 1; g < size; ++g) {
    readers[static_cast<std::size_t>(below(g))].push_back(2 *
                                                          static_cast<int>(g));
    const std::size_t hub = 0;
    if (below(3) > 0) readers[hub].push_back(2 * static_cast<int>(g));
    if (below(3) == 0) {
      net.problem.cost_model.terms.push_back(
          {1 + below(20), 2 * static_cast<int>(g), 2 * below(g)});
    }
  }
  for (std::size_t g = 0; g < size; ++g) {
    auto& to = readers[g];
    std::sort(to.begin(), to.end());
    to.erase(std::unique(to.begin(), to.end()), to.end());
    if (to.empty()) continue;
    net.points.push_back({"t", 1 + below(30), 2 * static_cast<int>(g), to});
    net.start.push_back(0);
  }
  net.start.clear();
  for (SearchGroup& group : net.problem.groups) {
    if (below(4) == 0) group.param_quantizers.clear();
    if (below(4) == 0) group.candidates.pop_back();
    net.start.push_back(group.candidates[static_cast<std::size_t>(
        below(group.candidates.size()))]);
  }
  return net;
}

bool may_widen(const SearchProblem& problem, std::size_t g, int from, int to) {
  if (from == to) return true;
  const SearchGroup& group = problem.groups[g];
  if (std::find(group.candidates.begin(), group.candidates.end(), to) ==
      group.candidates.end()) {
    return false;
  }
  const Candidate& a = problem.candidates[static_cast<std::size_t>(from)];
  const Candidate& b = problem.candidates[static_cast<std::size_t>(to)];
  return b.activation.bitwidth() >= a.activation.bitwidth() &&
         (group.param_quantizers.empty() ||
          b.param.bitwidth() >= a.param.bitwidth());
}

std::vector<Precision> precisions_at(const SearchProblem& problem,
                                     const Assignment& assignment) {
  std::vector<Precision> precisions = problem.fixed_precisions;
  for (std::size_t g = 0; g < assignment.size(); ++g) {
    const auto c = static_cast<std::size_t>(assignment[g]);
    for (const int q : problem.groups[g].activation_quantizers) {
      precisions[static_cast<std::size_t>(q)] =
          problem.candidates[c].activation;
    }
    for (const int q : problem.groups[g].param_quantizers) {
      precisions[static_cast<std::size_t>(q)] = problem.candidates[c].param;
    }
  }
  return precisions;
}

double least_cost(const Net& net, double budget) {
  const int count = static_cast<int>(net.problem.candidates.size());
  Assignment at(net.start.size(), 0);
  double best = kInf;
  for (std::size_t g = 0; g < at.size();) {
    if (g == 0) {
      bool allowed = true;
      for (std::size_t i = 0; i < at.size(); ++i) {
        allowed = allowed && may_widen(net.problem, i, net.start[i], at[i]);
      }
      if (allowed) {
        const auto precisions = precisions_at(net.problem, at);
        if (convert_cost(net.points, precisions, {}) <= budget + 1e-9) {
          best = std::min(best, net.problem.cost_model.bit_ops(precisions));
        }
      }
    }
    if (++at[g] < count) {
      g = 0;
    } else {
      at[g++] = 0;
    }
  }
  return best;
}

TEST(ConvertOpsProperties, MatchesEnumerationOnRandomNets) {
  std::mt19937 random(5);
  const std::vector<Candidate> candidates = {
      candidate(16, 16),
      {Precision::fp16(), Precision::fp16()},
      candidate(8, 8),
      candidate(8, 4)};
  int reduced = 0;
  for (int round = 0; round < 40; ++round) {
    const Net net = random_net(random, candidates);
    const double most =
        convert_cost(net.points, precisions_at(net.problem, net.start), {});
    const double unit = net.problem.cost_model.bit_ops(
        precisions_at(net.problem, Assignment(net.start.size(), 0)));
    const auto solutions = reduce_convert_ops(net.problem, net.points, {},
                                              net.start, {0, .3, .6, 1});
    for (const ConvertSolution& solution : solutions) {
      const double best = least_cost(net, solution.alpha * most);
      const auto precisions = precisions_at(net.problem, solution.assignment);
      EXPECT_DOUBLE_EQ(convert_cost(net.points, precisions, {}),
                       solution.convert_cost);
      for (std::size_t g = 0; g < net.start.size(); ++g) {
        EXPECT_TRUE(
            may_widen(net.problem, g, net.start[g], solution.assignment[g]));
      }
      EXPECT_EQ(solution.within_budget, best < kInf) << round;
      if (!solution.within_budget) continue;
      EXPECT_LE(solution.convert_cost, solution.alpha * most + 1e-6);
      EXPECT_NEAR(solution.relative_cost, best / unit, 1e-8) << round;
      EXPECT_NEAR(solution.gap, 0, 1e-8);
      reduced += solution.convert_cost < most ? 1 : 0;
    }
  }
  EXPECT_GT(reduced, 30);
}

}  // namespace
}  // namespace aimetpp::mixed
