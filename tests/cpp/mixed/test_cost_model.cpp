// SPDX-License-Identifier: BSD-3-Clause
#include <gtest/gtest.h>

#include "core/error.h"
#include "mixed/cost_model.h"
#include "support/graph_builder.h"

namespace aimetpp::mixed {
namespace {

using aimetpp::testing::GraphBuilder;
using aimetpp::testing::LeafOptions;
using aimetpp::testing::with_weight;
using graph::kNone;
using graph::OpGraph;

// A placement with one quantizer for each site named, in that order.
config::Placement place(const OpGraph& graph,
                        const std::vector<std::string>& names) {
  config::Placement placement;
  placement.quantizer_of_site.assign(graph.sites.size(), kNone);
  for (const std::string& name : names) {
    bool found = false;
    for (const graph::Site& site : graph.sites) {
      if (graph.site_name(site.id) != name) continue;
      placement.quantizer_of_site[static_cast<std::size_t>(site.id)] =
          static_cast<int>(placement.quantizers.size());
      placement.quantizers.push_back({Precision::integer(8),
                                      false,
                                      false,
                                      false,
                                      kNone,
                                      std::nullopt,
                                      site.kind,
                                      {site.id}});
      found = true;
    }
    EXPECT_TRUE(found) << name;
  }
  return placement;
}

Precision integer(int bits) { return Precision::integer(bits); }

// The example of AIMET's guide: MACs x activation bits x parameter bits.
TEST(CostModel, SumsMacsTimesActivationBitsTimesParamBits) {
  GraphBuilder b;
  const int hidden = b.leaf("conv2d", "conv1", {b.input()}, with_weight(1000));
  b.output(b.leaf("linear", "fc", {hidden}, with_weight(10, {10, 4})));
  const OpGraph graph = b.build();
  const auto placement =
      place(graph, {"conv1.input.0", "conv1.weight", "conv1", "fc.weight"});
  const CostModel model = build_cost_model(graph, placement);

  ASSERT_EQ(model.terms.size(), 2U);
  EXPECT_EQ(model.terms[1].macs, 10);
  EXPECT_EQ(model.terms[1].lhs, 2);
  EXPECT_EQ(model.terms[1].rhs, 3);
  EXPECT_DOUBLE_EQ(
      model.bit_ops({integer(16), integer(8), integer(8), integer(4)}),
      1000 * 16 * 8 + 10 * 8 * 4);
}

TEST(CostModel, CountsTheBitsOfFloatsAndThirtyTwoWhereNothingQuantizes) {
  GraphBuilder b;
  b.output(b.leaf("conv2d", "conv1", {b.input()}, with_weight(1000)));
  const OpGraph graph = b.build();
  const CostModel model =
      build_cost_model(graph, place(graph, {"conv1.weight"}));
  EXPECT_DOUBLE_EQ(model.bit_ops({Precision::fp16()}), 1000.0 * 32 * 16);
  EXPECT_DOUBLE_EQ(model.bit_ops({Precision::fp32()}), 1000.0 * 32 * 32);
}

// AIMET: an activation behind nn.Flatten never lowers the cost of the layer
// that reads it.
TEST(CostModel, ReadsTheActivationThroughGridPreservingOps) {
  GraphBuilder b;
  int x = b.leaf("relu", "relu", {b.input()});
  x = b.bare("view", {b.leaf("max_pool2d", "pool", {x})});
  b.output(b.leaf("linear", "fc", {x}, with_weight(7, {10, 4})));
  const OpGraph graph = b.build();
  const CostModel model =
      build_cost_model(graph, place(graph, {"relu", "fc.weight"}));
  ASSERT_EQ(model.terms.size(), 1U);
  EXPECT_EQ(model.terms[0].lhs, 0);
  EXPECT_DOUBLE_EQ(model.bit_ops({integer(4), integer(8)}), 7 * 4 * 8);
}

TEST(CostModel, ReadsNoActivationThroughAnUnquantizedComputeOp) {
  GraphBuilder b;
  const int x =
      b.leaf("batch_norm", "bn", {b.leaf("relu", "relu", {b.input()})});
  b.output(b.leaf("linear", "fc", {x}, with_weight(7, {10, 4})));
  const OpGraph graph = b.build();
  const CostModel model =
      build_cost_model(graph, place(graph, {"relu", "fc.weight"}));
  EXPECT_EQ(model.terms.at(0).lhs, kNone);
}

// AIMET counts no MACs for a matmul.
TEST(CostModel, MultipliesTwoActivations) {
  GraphBuilder b;
  const int x = b.input();
  const int q = b.leaf("linear", "q", {x}, with_weight(5, {4, 4}));
  const int k = b.leaf("linear", "k", {x}, with_weight(5, {4, 4}));
  LeafOptions product;
  product.macs = 64;
  product.multiplies_activations = true;
  const int qk = b.functional("matmul", "", {q, k}, product);
  b.output(b.functional("addmm", "", {x, qk, k}, product));
  const OpGraph graph = b.build();
  const CostModel model =
      build_cost_model(graph, place(graph, {"q", "k", "/matmul_0"}));
  ASSERT_EQ(model.terms.size(), 4U);
  EXPECT_EQ(model.terms[2].lhs, 0);
  EXPECT_EQ(model.terms[2].rhs, 1);
  EXPECT_EQ(model.terms[3].lhs, 2);  // not the addend, which comes first
  EXPECT_EQ(model.terms[3].rhs, 1);
}

// q, k: E = 8; v: Ev = 24. Of 320 MACs a quarter makes q k^T.
TEST(CostModel, SplitsAttentionByItsTwoProducts) {
  GraphBuilder b;
  const int x = b.input();
  const auto make = [&](const char* name, std::int64_t embed) {
    LeafOptions options;
    options.shape = {1, 5, embed};
    return b.leaf("relu", name, {x}, options);
  };
  LeafOptions attention;
  attention.macs = 320;
  attention.multiplies_activations = true;
  b.output(b.functional("scaled_dot_product_attention", "",
                        {make("q", 8), make("k", 8), make("v", 24)},
                        attention));
  const OpGraph graph = b.build();
  const CostModel model =
      build_cost_model(graph, place(graph, {"q", "k", "v"}));
  ASSERT_EQ(model.terms.size(), 2U);
  EXPECT_EQ(model.terms[0].macs, 80);
  EXPECT_EQ(model.terms[1].macs, 240);
  EXPECT_EQ(model.terms[1].lhs, kNone);  // the probabilities
  EXPECT_EQ(model.terms[1].rhs, 2);
}

// An LSTM of 3 inputs and 5 hidden values, 4 gates, 10 steps:
// 10 x 20 x (3 + 5) MACs.
TEST(CostModel, SharesMacsAmongWeightsBySize) {
  GraphBuilder b;
  LeafOptions lstm;
  lstm.params = {{"weight_ih_l0", {20, 3}},
                 {"weight_hh_l0", {20, 5}},
                 {"bias_ih_l0", {20}}};
  lstm.macs = 1600;
  b.output(b.leaf("lstm", "lstm", {b.input()}, lstm));
  const OpGraph graph = b.build();
  const CostModel model = build_cost_model(
      graph, place(graph, {"lstm.weight_ih_l0", "lstm.weight_hh_l0"}));
  ASSERT_EQ(model.terms.size(), 2U);
  EXPECT_EQ(model.terms[0].macs, 600);
  EXPECT_EQ(model.terms[1].macs, 1000);
  EXPECT_EQ(model.terms[0].rhs, 0);
  EXPECT_EQ(model.terms[1].rhs, 1);
}

TEST(CostModel, CountsEveryCallOfAReusedModule) {
  GraphBuilder b;
  const int first = b.leaf("linear", "fc", {b.input()}, with_weight(9, {4, 4}));
  b.output(b.leaf("linear", "fc", {first}, with_weight(9, {4, 4})));
  const OpGraph graph = b.build();
  const CostModel model =
      build_cost_model(graph, place(graph, {"fc.input.0", "fc", "fc.weight"}));
  ASSERT_EQ(model.terms.size(), 2U);
  EXPECT_EQ(model.terms[0].lhs, 0);
  EXPECT_EQ(model.terms[1].lhs, 1);
  EXPECT_EQ(model.terms[0].rhs, 2);
  EXPECT_EQ(model.terms[1].rhs, 2);
}

TEST(CostModel, RefusesFewerPrecisionsThanQuantizers) {
  const CostModel model{.terms = {{10, 0, 2}}};
  try {
    static_cast<void>(model.bit_ops({integer(8), integer(8)}));
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::value);
    EXPECT_NE(std::string(error.what()).find("got 2 precisions"),
              std::string::npos);
  }
}

}  // namespace
}  // namespace aimetpp::mixed
