// SPDX-License-Identifier: BSD-3-Clause
#include "mixed/cost_table.h"

#include <gtest/gtest.h>

#include "config/placement_fixtures.h"
#include "support/graph_builder.h"
#include "support/landscape.h"

namespace aimetpp::mixed {
namespace {

using aimetpp::testing::candidate;
using aimetpp::testing::error_of;
using aimetpp::testing::GraphBuilder;
using aimetpp::testing::Landscape;
using aimetpp::testing::with_weight;

const Precision kInt8 = Precision::integer(8);
const Precision kInt16 = Precision::integer(16);

// conv1 -> conv2 -> + (with conv1's result).
struct Model {
  graph::OpGraph graph;
  config::Placement placement;
};

Model make_model() {
  GraphBuilder b;
  const int x = b.leaf("conv2d", "conv1", {b.input()}, with_weight(100));
  const int y = b.leaf("conv2d", "conv2", {x}, with_weight(10));
  b.output(b.functional("add", "", {x, y}));
  Model model{b.build(), {}};
  model.placement =
      aimetpp::testing::place(model.graph, aimetpp::testing::plain_config());
  return model;
}

std::vector<CostRow> rows() {
  return {{"Conv", kInt16, kInt8, 4},   {"Conv", kInt8, kInt8, 2},
          {"conv2", kInt16, kInt8, 30}, {"conv2", kInt8, kInt8, 7},
          {"Add", kInt16, {}, 1},       {"Add", kInt8, {}, .5}};
}

// By name before by type: conv1 4 or 2, conv2 30 or 7, the addition 1 or 1/2.
TEST(CostTable, TakesTheRowOfTheNameThenOfTheType) {
  const Model model = make_model();
  const CostModel costs =
      build_table_cost_model(model.graph, model.placement, rows());
  ASSERT_EQ(costs.terms.size(), 3U);
  std::vector<Precision> precisions(model.placement.quantizers.size(), kInt8);
  EXPECT_DOUBLE_EQ(costs.cost(precisions), 2 + 7 + .5);
  for (std::size_t q = 0; q < precisions.size(); ++q) {
    if (model.placement.quantizers[q].kind != graph::SiteKind::param) {
      precisions[q] = kInt16;
    }
  }
  EXPECT_DOUBLE_EQ(costs.cost(precisions), 4 + 30 + 1);
  EXPECT_DOUBLE_EQ(costs.bit_ops(precisions), (100 + 10) * 16. * 8);
}

TEST(CostTable, TheSearchFollowsIt) {
  const Model model = make_model();
  SearchProblem problem;
  problem.candidates = {candidate(16, 8), candidate(8, 8)};
  problem.cost_model =
      build_table_cost_model(model.graph, model.placement, rows());
  problem.num_quantizers = static_cast<int>(model.placement.quantizers.size());
  for (int q = 0; q < problem.num_quantizers; ++q) {
    problem.fixed_precisions.push_back(kInt8);
    const auto& spec = model.placement.quantizers[static_cast<std::size_t>(q)];
    if (spec.kind == graph::SiteKind::param) continue;
    problem.groups.push_back({"g" + std::to_string(q), {q}, {}, {0, 1}});
  }
  Landscape landscape([](Phase, const Assignment&) { return 1.0; });
  const SearchResult result = greedy_search(problem, {}, landscape);
  // Equal scores: the largest saving first, which is conv2's input.
  EXPECT_NEAR(result.walk.front().relative_bit_ops, (4 + 7 + 1) / 35., 1e-12);
  EXPECT_NEAR(result.walk.back().relative_bit_ops, 9.5 / 35, 1e-12);
}

TEST(CostTable, NamesWhatIsWrong) {
  const Model model = make_model();
  const auto message = [&](const std::vector<CostRow>& table) {
    return error_of(
        [&] { build_table_cost_model(model.graph, model.placement, table); },
        ErrorKind::value);
  };
  const auto has = [](const std::string& text, const std::string& part) {
    EXPECT_NE(text.find(part), std::string::npos) << text;
  };
  has(message({{"conv1", kInt8, kInt8, 1}}),
      "rows for conv2, Conv or conv2d are required");
  has(message({{"Conv", kInt8, kInt8, 1}, {"Conv", kInt8, kInt8, 2}}),
      "(Conv, int8, int8) is there twice");
  has(message({{"Conv", kInt8, kInt8, -1}}), "not negative, got -1");
  has(message({{"Conv", kInt8, kInt8, 1}, {"Gemm", kInt8, kInt8, 1}}),
      "no op of the model has the name, ONNX type or kind Gemm");
}

// Before anything is evaluated.
TEST(CostTable, EveryPairThatMayMeetIsNeeded) {
  const Model model = make_model();
  SearchProblem problem;
  problem.candidates = {candidate(16, 8), candidate(8, 8)};
  problem.cost_model = build_table_cost_model(model.graph, model.placement,
                                              {{"Conv", kInt16, kInt8, 1}});
  problem.num_quantizers = static_cast<int>(model.placement.quantizers.size());
  problem.fixed_precisions.assign(
      static_cast<std::size_t>(problem.num_quantizers), kInt8);
  problem.groups.push_back({"g", {0}, {}, {0, 1}});
  Landscape landscape([](Phase, const Assignment&) { return 1.0; });
  const std::string text = error_of(
      [&] { greedy_search(problem, {}, landscape); }, ErrorKind::value);
  EXPECT_NE(text.find("cost table: conv1 has no cost for (int8, int8)"),
            std::string::npos)
      << text;
  EXPECT_TRUE(landscape.seen.empty());
}

}  // namespace
}  // namespace aimetpp::mixed
