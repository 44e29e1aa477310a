// SPDX-License-Identifier: BSD-3-Clause
// A quantized tensor times a constant lies on a multiple of its grid.
#include <gtest/gtest.h>

#include "config/placement_fixtures.h"
#include "support/graph_builder.h"

namespace aimetpp::config {
namespace {

using graph::OpGraph;
using testing::fusing_config;
using testing::GraphBuilder;
using testing::Lines;
using testing::op_named;
using testing::place;
using testing::plain_config;
using testing::quantizer_lines;
using testing::rule_lines;
using testing::with_weight;

// x -> relu -> mul by a constant -> `reader`.
struct Scaled {
  GraphBuilder b;
  int relu = graph::kNone;
  int mul = graph::kNone;

  Scaled() {
    relu = b.leaf("relu", "relu", {b.input()});
    mul = b.functional("mul", "", {relu});
  }
  [[nodiscard]] OpGraph build() const {
    OpGraph graph = b.build();
    graph.ops[op_named(graph, "/mul_0")].rescale = 0.125;
    return graph;
  }
};

TEST(Rescale, NeedsNoQuantizerOfItsOwn) {
  Scaled model;
  model.b.output(model.b.leaf("linear", "fc", {model.mul}, with_weight()));
  const OpGraph graph = model.build();
  const Placement placement = place(graph, plain_config());
  EXPECT_EQ(quantizer_lines(graph, placement),
            (Lines{"input int8: relu.input.0", "output int8: relu",
                   "param int4 sym: fc.weight", "output int8: fc"}));
  EXPECT_EQ(rule_lines(graph, placement, "/mul_0").back(),
            "graph | constant factor | off: the grid of relu times 0.125");
  // The reader's precision is decided where the tensor met its quantizer.
  const int fc = op_named(graph, "fc");
  EXPECT_EQ(quantizer_of_input(graph, placement, fc, 0), 1);
  EXPECT_EQ(quantizer_covering(graph, placement,
                               testing::site_named(graph, "/mul_0")),
            1);
}

TEST(Rescale, ChainsOfConstants) {
  Scaled model;
  model.b.output(model.b.functional("mul", "", {model.mul}));
  OpGraph graph = model.build();
  graph.ops[op_named(graph, "/mul_1")].rescale = 3.0;
  EXPECT_EQ(quantizer_lines(graph, place(graph, plain_config())),
            (Lines{"input int8: relu.input.0", "output int8: relu"}));
}

TEST(Rescale, KeepsItsQuantizerBehindAnUnquantizedTensor) {
  GraphBuilder b;
  const int t = b.leaf("conv2d", "conv", {b.input()}, with_weight());
  b.output(b.functional("mul", "", {t}));
  OpGraph graph = b.build();
  graph.ops[op_named(graph, "/mul_0")].rescale = 2.0;
  QuantConfig config = plain_config();
  config.op_type["Conv"].is_output_quantized = false;
  EXPECT_EQ(quantizer_lines(graph, place(graph, config)),
            (Lines{"input int8: conv.input.0", "param int4 sym: conv.weight",
                   "output int8: /mul_0"}));
}

TEST(Rescale, OpTypeAsksForIt) {
  Scaled model;
  model.b.output(model.mul);
  QuantConfig config = plain_config();
  const OpGraph graph = model.build();
  config.op_type["Mul"].is_output_quantized = true;
  EXPECT_EQ(quantizer_lines(graph, place(graph, config)).back(),
            "output int8: /mul_0");
  config.op_type["Mul"].is_output_quantized = std::nullopt;
  config.op_type["Mul"].encoding_constraints = {0.0, 1.0};
  EXPECT_EQ(quantizer_lines(graph, place(graph, config)).back(),
            "output int8: /mul_0");
}

TEST(Rescale, AConcatenationNeedsItOnItsOwnGrid) {
  Scaled model;
  const int view = model.b.bare("view", {model.mul});
  model.b.output(model.b.functional("cat", "", {model.relu, view}));
  const OpGraph graph = model.build();
  EXPECT_EQ(
      quantizer_lines(graph, place(graph, plain_config())),
      (Lines{"input int8: relu.input.0", "output int8: relu /mul_0 /cat_0"}));
}

TEST(Rescale, FloatFormatsRoundTheProduct) {
  Scaled model;
  model.b.output(model.mul);
  const OpGraph graph = model.build();
  const Placement placement = place_quantizers(
      graph, plain_config(), {Precision::fp16(), Precision::fp16()});
  EXPECT_EQ(quantizer_lines(graph, placement).back(), "output fp16: /mul_0");
}

TEST(Rescale, FirstOpOfAChainStaysInside) {
  Scaled model;
  model.b.output(model.b.leaf("relu", "last", {model.mul}));
  QuantConfig config = fusing_config();
  config.supergroups = {{"Mul", "Relu"}};
  const OpGraph graph = model.build();
  EXPECT_EQ(quantizer_lines(graph, place(graph, config)).back(),
            "output int8: last");
}

}  // namespace
}  // namespace aimetpp::config
