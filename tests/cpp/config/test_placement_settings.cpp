// SPDX-License-Identifier: BSD-3-Clause
// What the sections of a config make of a quantizer: whether it is on, its
// symmetry, channel axis and constraints; and the kernels of the ops.
#include "config/placement.h"

#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <vector>

#include "config/placement_fixtures.h"
#include "support/graph_builder.h"

namespace aimetpp::config {
namespace {

using graph::OpGraph;
using testing::GraphBuilder;
using testing::Lines;
using testing::place;
using testing::placed;
using testing::plain_config;
using testing::quantizer_lines;
using testing::with_weight;

TEST(PlaceQuantizers, ParamNamesFollowTheirRule) {
  GraphBuilder b;
  testing::LeafOptions lstm;
  lstm.params = {{"weight_ih_l0", {16, 4}}, {"bias_ih_l0", {16}}};
  b.output(b.leaf("lstm", "lstm", {b.input()}, lstm));
  QuantConfig config = plain_config();
  EXPECT_EQ(placed(b, config),
            (Lines{"input int8: lstm.input.0",
                   "param int4 sym: lstm.weight_ih_l0", "output int8: lstm"}));
  config.params["bias"] = {true, false};
  config.params["weight_ih_l0"] = {false, std::nullopt};
  EXPECT_EQ(placed(b, config),
            (Lines{"input int8: lstm.input.0", "param int4: lstm.bias_ih_l0",
                   "output int8: lstm"}));
}

TEST(PlaceQuantizers, ChannelAxes) {
  GraphBuilder b;
  int t = b.leaf("conv2d", "conv", {b.input()}, with_weight());
  t = b.leaf("conv_transpose2d", "up", {t}, with_weight(1, {4, 2, 3, 3}));
  testing::LeafOptions slopes;
  slopes.params = {{"weight", {4}}};
  t = b.leaf("prelu", "prelu", {t}, slopes);
  slopes.params = {{"weight", {1}}};
  t = b.leaf("prelu", "prelu1", {t}, slopes);
  t = b.leaf("layer_norm", "norm", {t}, with_weight(0, {4}));
  b.output(b.leaf("linear", "fc", {t}, with_weight(1, {4, 4})));
  QuantConfig config = plain_config();
  config.params["bias"].is_quantized = true;
  config.defaults.per_channel_quantization = true;
  config.op_type["Gemm"].per_channel_quantization = false;
  Lines params;
  for (const std::string& line : placed(b, config)) {
    if (line.starts_with("param")) {
      params.push_back(line.substr(std::string("param int4 sym").size()));
    }
  }
  EXPECT_EQ(
      params,
      (Lines{" axis 0: conv.weight", ": conv.bias", " axis 1: up.weight",
             ": up.bias", " axis 0: prelu.weight", ": prelu1.weight",
             ": norm.weight", ": norm.bias", ": fc.weight", ": fc.bias"}));
}

TEST(PlaceQuantizers, SymmetryAndItsVariants) {
  GraphBuilder b;
  int t = b.leaf("conv2d", "conv", {b.input()}, with_weight());
  b.output(b.leaf("softmax", "softmax", {t}));
  QuantConfig config = plain_config();
  config.defaults.ops_is_symmetric = true;
  config.defaults.strict_symmetric = true;
  config.defaults.unsigned_symmetric = true;
  config.op_type["Softmax"].is_symmetric = false;
  const OpGraph graph = b.build();
  const Placement placement = place(graph, config);
  EXPECT_EQ(
      quantizer_lines(graph, placement),
      (Lines{"input int8 sym: conv.input.0", "param int4 sym: conv.weight",
             "output int8 sym: conv", "output int8: softmax"}));
  for (const QuantizerSpec& spec : placement.quantizers) {
    EXPECT_EQ(spec.strict_symmetric, spec.symmetric);
    EXPECT_EQ(spec.unsigned_symmetric, spec.symmetric);
  }
}

TEST(PlaceQuantizers, EncodingConstraintsStandOnOutputs) {
  GraphBuilder b;
  b.output(b.leaf("softmax", "softmax", {b.input()}));
  QuantConfig config = plain_config();
  config.op_type["Softmax"].encoding_constraints = {0.0, 1.0};
  const Placement placement = place(b.build(), config);
  ASSERT_EQ(placement.quantizers.size(), 2U);
  EXPECT_FALSE(placement.quantizers[0].constraints.has_value());
  ASSERT_TRUE(placement.quantizers[1].constraints.has_value());
  EXPECT_EQ(placement.quantizers[1].constraints->min, 0.0);
  EXPECT_EQ(placement.quantizers[1].constraints->max, 1.0);
}

// Op types override defaults; a reader's wish for its input comes after what
// the producer's type says; supergroups come after both.
TEST(PlaceQuantizers, PrecedenceOfSections) {
  GraphBuilder b;
  int t = b.leaf("conv2d", "conv", {b.input()}, with_weight());
  t = b.leaf("relu", "relu", {t});
  b.output(b.leaf("softmax", "softmax", {t}));
  QuantConfig config = plain_config();
  config.op_type["Relu"].is_output_quantized = false;
  EXPECT_EQ(placed(b, config),
            (Lines{"input int8: conv.input.0", "param int4 sym: conv.weight",
                   "output int8: conv", "output int8: softmax"}));
  config.op_type["Softmax"].is_input_quantized = true;
  config.op_type["Relu"].is_input_quantized = true;
  EXPECT_EQ(placed(b, config),
            (Lines{"input int8: conv.input.0", "param int4 sym: conv.weight",
                   "output int8: conv", "output int8: relu",
                   "output int8: softmax"}));
  config.supergroups = {{"Conv", "Relu"}};
  EXPECT_EQ(placed(b, config),
            (Lines{"input int8: conv.input.0", "param int4 sym: conv.weight",
                   "output int8: relu", "output int8: softmax"}));
  config.op_type["Conv"].params["weight"] = {false, std::nullopt};
  EXPECT_EQ(placed(b, config),
            (Lines{"input int8: conv.input.0", "output int8: relu",
                   "output int8: softmax"}));
}

TEST(PlaceQuantizers, KernelsOfOps) {
  GraphBuilder b;
  const int t = b.leaf("conv2d", "conv", {b.input()}, with_weight());
  b.output(b.leaf("relu", "relu", {t}));
  QuantConfig config = plain_config();
  const SupportedKernel a8w8{Precision::integer(8), Precision::integer(8)};
  const SupportedKernel a16{Precision::integer(16), std::nullopt};
  EXPECT_TRUE(place(b.build(), config).kernels_of_op[0].empty());
  config.defaults.supported_kernels = {a8w8};
  config.op_type["Relu"].supported_kernels = {{a16}};
  const Placement placement = place(b.build(), config);
  EXPECT_EQ(placement.kernels_of_op[0], std::vector{a8w8});
  EXPECT_EQ(placement.kernels_of_op[1], std::vector{a16});
}

// Products with a parameter: output channels are the columns of a right
// operand, the rows of a left one.
TEST(PlaceQuantizers, ChannelAxesOfMatrixProducts) {
  GraphBuilder b;
  testing::LeafOptions right;
  right.params = {{"weight", {8, 3}}};
  right.macs = 24;
  int t = b.functional("matmul", "", {b.input()}, right);
  testing::LeafOptions conv1d;  // transformers' Conv1D: addmm(bias, x, weight)
  conv1d.params = {{"bias", {8}}, {"weight", {3, 8}}};
  t = b.leaf("addmm", "c_attn", {t}, conv1d);
  b.output(b.functional("matmul", "", {t}, right));
  OpGraph graph = b.build();
  graph.ops[2].params[0].site = graph.sites.size();
  graph.sites.push_back({static_cast<int>(graph.sites.size()),
                         graph::SiteKind::param, graph.ops[2].call, 1, "w"});
  graph.ops[2].params[0].parameter = 99;
  graph.sites[graph.ops[0].params[0].site].slot = 0;
  QuantConfig config = plain_config();
  config.defaults.per_channel_quantization = true;
  Lines params;
  for (const std::string& line : quantizer_lines(graph, place(graph, config))) {
    if (line.starts_with("param")) {
      params.push_back(line);
    }
  }
  EXPECT_EQ(params, (Lines{"param int4 sym axis 0: /matmul_0.weight",
                           "param int4 sym axis 1: c_attn.weight",
                           "param int4 sym axis 1: /matmul_1.w"}));
}

TEST(PlaceQuantizers, LinearLayersFollowMatMulWhereGemmSaysNothing) {
  GraphBuilder b;
  b.output(b.leaf("linear", "fc", {b.input()}, with_weight()));
  QuantConfig config = plain_config();
  config.op_type["MatMul"].is_symmetric = true;
  config.op_type["MatMul"].per_channel_quantization = true;
  EXPECT_EQ(placed(b, config),
            (Lines{"input int8 sym: fc.input.0",
                   "param int4 sym axis 0: fc.weight", "output int8 sym: fc"}));
  config.op_type["Gemm"].is_symmetric = false;
  EXPECT_EQ(placed(b, config),
            (Lines{"input int8: fc.input.0", "param int4 sym axis 0: fc.weight",
                   "output int8: fc"}));
}

TEST(PlaceQuantizers, ARangeAroundZeroIsSymmetric) {
  GraphBuilder b;
  b.output(b.leaf("tanh", "tanh", {b.input()}));
  QuantConfig config = plain_config();
  config.op_type["Tanh"].encoding_constraints = {-1.0, 1.0};
  EXPECT_EQ(placed(b, config).back(), "output int8 sym: tanh");
  config.op_type["Tanh"].is_symmetric = false;
  EXPECT_EQ(placed(b, config).back(), "output int8: tanh");
}

}  // namespace
}  // namespace aimetpp::config
