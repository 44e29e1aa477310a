// SPDX-License-Identifier: BSD-3-Clause
// Which biases integer hardware adds in steps of which quantizers' scales.
#include "config/integer_biases.h"

#include <gtest/gtest.h>

#include <string>

#include "config/placement_fixtures.h"
#include "support/graph_builder.h"

namespace aimetpp::config {
namespace {

using graph::OpGraph;
using testing::fusing_config;
using testing::GraphBuilder;
using testing::LeafOptions;
using testing::Lines;
using testing::op_named;
using testing::place;
using testing::plain_config;
using testing::with_weight;

// "fc.bias: relu * 0.125 * fc.weight", by the first sites of the quantizers.
Lines bias_lines(const OpGraph& graph, const QuantConfig& config) {
  const Placement placement = place(graph, config);
  const auto first_site = [&](int quantizer) {
    return graph.site_name(placement.quantizers[quantizer].sites.front());
  };
  Lines lines;
  for (const IntegerBias& bias : integer_biases(graph, placement)) {
    std::string line =
        graph.site_name(bias.site) + ": " + first_site(bias.input);
    if (bias.factor != 1.0) line += " * " + std::to_string(bias.factor);
    lines.push_back(line + " * " + first_site(bias.weight));
  }
  return lines;
}

TEST(IntegerBiases, OfLayersBehindInputsPoolsAndViews) {
  GraphBuilder b;
  const int conv = b.leaf("conv2d", "conv", {b.input()}, with_weight());
  const int pool =
      b.leaf("max_pool2d", "pool", {b.leaf("relu", "relu", {conv})});
  const int flat = b.bare("flatten", {pool});
  b.output(b.leaf("linear", "fc", {flat}, with_weight(1, {4, 16})));
  EXPECT_EQ(bias_lines(b.build(), fusing_config()),
            (Lines{"conv.bias: conv.input.0 * conv.weight",
                   "fc.bias: relu * fc.weight"}));
}

TEST(IntegerBiases, BehindConstantFactors) {
  GraphBuilder b;
  const int relu = b.leaf("relu", "relu", {b.input()});
  const int half = b.functional("mul", "", {relu});
  const int quarter = b.functional("mul", "", {b.bare("view", {half})});
  b.output(b.leaf("linear", "fc", {quarter}, with_weight()));
  OpGraph graph = b.build();
  graph.ops[op_named(graph, "/mul_0")].rescale = 0.5;
  graph.ops[op_named(graph, "/mul_1")].rescale = 0.25;
  EXPECT_EQ(bias_lines(graph, plain_config()),
            (Lines{"fc.bias: relu * 0.125000 * fc.weight"}));
}

TEST(IntegerBiases, NotWhereABiasHasAQuantizerOrWeightOrInputHaveNone) {
  GraphBuilder b;
  LeafOptions without_bias = with_weight();
  without_bias.params.pop_back();
  const int x = b.leaf("linear", "no_bias", {b.input()}, without_bias);
  const int y = b.leaf("layer_norm", "norm", {x}, with_weight(0, {4}));
  b.output(b.leaf("conv_transpose2d", "up", {y}, with_weight()));
  const OpGraph graph = b.build();
  EXPECT_EQ(bias_lines(graph, plain_config()),
            (Lines{"up.bias: norm * up.weight"}));

  QuantConfig biases = plain_config();
  biases.params["bias"] = {true, std::nullopt};
  EXPECT_EQ(bias_lines(graph, biases), Lines{});

  QuantConfig float_weights = plain_config();
  float_weights.params["weight"] = {false, std::nullopt};
  EXPECT_EQ(bias_lines(graph, float_weights), Lines{});

  QuantConfig only_params = plain_config();
  only_params.defaults.ops_is_output_quantized = false;
  only_params.model_input_is_input_quantized = false;
  EXPECT_EQ(bias_lines(graph, only_params), Lines{});
}

TEST(IntegerBiases, EachCallOfALayerHasItsOwnInput) {
  GraphBuilder b;
  const int once = b.leaf("linear", "fc", {b.input()}, with_weight());
  b.output(b.leaf("linear", "fc", {once}, with_weight()));
  EXPECT_EQ(
      bias_lines(b.build(), plain_config()),
      (Lines{"fc.bias: fc.input.0 * fc.weight", "fc.bias: fc * fc.weight"}));
}

}  // namespace
}  // namespace aimetpp::config
