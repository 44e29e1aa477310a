// SPDX-License-Identifier: BSD-3-Clause
// What defaults.hw_version changes.
#include <gtest/gtest.h>

#include <string>

#include "config/placement_fixtures.h"
#include "support/graph_builder.h"

namespace aimetpp::config {
namespace {

using graph::OpGraph;
using testing::GraphBuilder;
using testing::Lines;
using testing::place;
using testing::plain_config;
using testing::quantizer_lines;
using testing::rule_lines;
using testing::with_weight;

QuantConfig config_of(const std::string& hw_version) {
  QuantConfig config = plain_config();
  config.defaults.hw_version = hw_version;
  return config;
}

Placement place16(const OpGraph& graph, const QuantConfig& config) {
  return place_quantizers(graph, config,
                          {Precision::integer(16), Precision::integer(8)});
}

OpGraph product_of_two_activations() {
  GraphBuilder b;
  const int left = b.leaf("relu", "left", {b.input()});
  const int right = b.leaf("relu", "right", {b.input()});
  testing::LeafOptions product;
  product.macs = 64;
  product.multiplies_activations = true;
  b.output(b.functional("matmul", "", {left, right}, product));
  return b.build();
}

TEST(HardwareRules, ResizedImagesKeepTheGridOfTheirInput) {
  GraphBuilder b;
  const int t = b.leaf("relu", "relu", {b.input()});
  b.output(b.leaf("interpolate", "resize", {t}));
  const OpGraph graph = b.build();
  const Lines apart = {"input int8: relu.input.0", "output int8: relu",
                       "output int8: resize"};
  const Lines tied = {"input int8: relu.input.0", "output int8: relu resize"};
  EXPECT_EQ(quantizer_lines(graph, place(graph, config_of(""))), apart);
  EXPECT_EQ(quantizer_lines(graph, place(graph, config_of("V66"))), tied);
  EXPECT_EQ(quantizer_lines(graph, place(graph, config_of("my NPU"))), tied);
}

// The resized values are the input's: a constraint of the input's op holds.
TEST(HardwareRules, ResizingFreesNoConstraint) {
  GraphBuilder b;
  const int t = b.leaf("relu", "relu", {b.input()});
  b.output(b.leaf("interpolate", "resize", {t}));
  QuantConfig config = config_of("V73");
  config.op_type["Relu"].encoding_constraints = {0.0, 6.0};
  const Placement placement = place(b.build(), config);
  ASSERT_EQ(placement.quantizers.size(), 2U);
  EXPECT_EQ(placement.quantizers[1].constraints->max, 6.0);
}

TEST(HardwareRules, EarlyVersionsMultiplyByEightSymmetricBits) {
  const OpGraph graph = product_of_two_activations();
  for (const char* version : {"V66", "V68", "V69"}) {
    const Placement placement = place16(graph, config_of(version));
    EXPECT_EQ(quantizer_lines(graph, placement),
              (Lines{"input int16: left.input.0", "output int16: left",
                     "input int16: right.input.0", "output int8 sym: right",
                     "output int16: /matmul_0"}));
    EXPECT_EQ(rule_lines(graph, placement, "right").back(),
              std::string("defaults | hw_version ") + version +
                  " | int8 symmetric: second factor of /matmul_0");
  }
}

TEST(HardwareRules, LaterVersionsMultiplySixteenBitsSymmetric) {
  const OpGraph graph = product_of_two_activations();
  EXPECT_EQ(quantizer_lines(graph, place16(graph, config_of("V73"))),
            (Lines{"input int16: left.input.0", "output int16: left",
                   "input int16: right.input.0", "output int16 sym: right",
                   "output int16: /matmul_0"}));
  // Of 8 bits they take any second factor.
  for (const std::string& line :
       quantizer_lines(graph, place(graph, config_of("V73")))) {
    EXPECT_EQ(line.find("sym"), std::string::npos) << line;
  }
  // No version of Hexagon's.
  EXPECT_EQ(quantizer_lines(graph, place16(graph, config_of("other"))),
            quantizer_lines(graph, place16(graph, config_of(""))));
}

TEST(HardwareRules, EmbeddingTablesFollowTheirOutput) {
  GraphBuilder b;
  testing::LeafOptions table;
  table.params = {{"weight", {10, 4}}};
  const int ids = b.input({1, 7});
  int t = b.leaf("embedding", "embed", {ids}, table);
  b.output(b.leaf("group_norm", "norm", {t}, with_weight(0, {4})));
  OpGraph graph = b.build();
  graph.tensors[ids].is_floating = false;
  const auto params = [&](const char* version) {
    Lines lines;
    for (const std::string& line :
         quantizer_lines(graph, place16(graph, config_of(version)))) {
      if (line.starts_with("param")) {
        lines.push_back(line);
      }
    }
    return lines;
  };
  EXPECT_EQ(params("V73"),
            (Lines{"param int16: embed.weight", "param int16: norm.weight"}));
  EXPECT_EQ(params("V69"), (Lines{"param int8 sym: embed.weight",
                                  "param int8 sym: norm.weight"}));
}

}  // namespace
}  // namespace aimetpp::config
