// SPDX-License-Identifier: BSD-3-Clause
// Where quantizers stand, on graphs small enough to place them by hand.
#include "config/placement.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

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
using testing::placed;
using testing::plain_config;
using testing::quantizer_lines;
using testing::site_named;
using testing::with_weight;

TEST(PlaceQuantizers, Chain) {
  GraphBuilder b;
  int t = b.leaf("conv2d", "conv1", {b.input()}, with_weight());
  t = b.leaf("relu", "relu1", {t});
  b.output(b.leaf("conv2d", "conv2", {t}, with_weight()));
  EXPECT_EQ(placed(b, fusing_config()),
            (Lines{"input int8: conv1.input.0", "param int4 sym: conv1.weight",
                   "output int8: relu1", "param int4 sym: conv2.weight",
                   "output int8: conv2"}));
  EXPECT_EQ(placed(b, plain_config()),
            (Lines{"input int8: conv1.input.0", "param int4 sym: conv1.weight",
                   "output int8: conv1", "output int8: relu1",
                   "param int4 sym: conv2.weight", "output int8: conv2"}));
}

TEST(PlaceQuantizers, EmptyConfigTurnsNothingOn) {
  GraphBuilder b;
  b.output(b.leaf("conv2d", "conv1", {b.input()}, with_weight()));
  EXPECT_EQ(placed(b, QuantConfig{}), Lines{});
}

// The residual block of torchvision's resnet: `relu` called twice, `+`
// functional. Each call has its own quantizer.
TEST(PlaceQuantizers, ResidualBlockWithReusedRelu) {
  GraphBuilder b;
  const int x = b.input();
  int t = b.leaf("conv2d", "conv1", {x}, with_weight());
  t = b.leaf("batch_norm", "bn1", {t}, with_weight(0, {4}));
  t = b.leaf("relu", "relu", {t});
  t = b.leaf("conv2d", "conv2", {t}, with_weight());
  t = b.leaf("batch_norm", "bn2", {t}, with_weight(0, {4}));
  t = b.functional("add", "", {t, x});
  b.output(b.leaf("relu", "relu", {t}));
  EXPECT_EQ(placed(b, fusing_config()),
            (Lines{"input int8: conv1.input.0 /add_0.input.1",
                   "param int4 sym: conv1.weight", "output int8: relu",
                   "param int4 sym: conv2.weight", "output int8: bn2",
                   "output int8: relu:1"}));
}

TEST(PlaceQuantizers, BatchNormThatDoesNotFoldKeepsItsParams) {
  GraphBuilder b;
  int t = b.leaf("relu", "relu", {b.input()});
  b.output(b.leaf("batch_norm", "bn", {t}, with_weight(0, {4})));
  EXPECT_EQ(placed(b, fusing_config()),
            (Lines{"input int8: relu.input.0", "output int8: relu",
                   "param int4 sym: bn.weight", "output int8: bn"}));
}

// What the config says of the convolution's output moves behind the batch norm.
TEST(PlaceQuantizers, FoldedBatchNormTakesOverTheConvolutionsSettings) {
  GraphBuilder b;
  const int t = b.leaf("conv2d", "conv", {b.input()}, with_weight());
  b.output(b.leaf("batch_norm", "bn", {t}, with_weight(0, {4})));
  QuantConfig config = plain_config();
  config.op_type["Conv"].is_symmetric = true;
  EXPECT_EQ(placed(b, config),
            (Lines{"input int8 sym: conv.input.0",
                   "param int4 sym: conv.weight", "output int8 sym: bn"}));
  config.op_type["Conv"].is_output_quantized = false;
  config.op_type["BatchNormalization"].is_output_quantized = true;
  EXPECT_EQ(placed(b, config), (Lines{"input int8 sym: conv.input.0",
                                      "param int4 sym: conv.weight"}));
}

TEST(PlaceQuantizers, ModelInputReadByTwoOpsIsOneQuantizer) {
  GraphBuilder b;
  const int x = b.input();
  const int left = b.leaf("conv2d", "left", {x}, with_weight());
  const int right = b.leaf("conv2d", "right", {x}, with_weight());
  b.output(b.functional("add", "", {left, right}));
  EXPECT_EQ(placed(b, plain_config()),
            (Lines{"input int8: left.input.0 right.input.0",
                   "param int4 sym: left.weight", "output int8: left",
                   "param int4 sym: right.weight", "output int8: right",
                   "output int8: /add_0"}));
}

TEST(PlaceQuantizers, ModelInputIsSeenThroughDataMovement) {
  GraphBuilder b;
  const int x = b.input();
  const int flat = b.leaf("flatten", "flatten", {b.bare("view", {x})});
  const int y = b.leaf("linear", "fc", {flat}, with_weight());
  b.output(y);
  b.output(b.functional("mul", "", {x, b.constant({})}));
  EXPECT_EQ(placed(b, plain_config()),
            (Lines{"input int8: fc.input.0 /mul_0.input.0",
                   "param int4 sym: fc.weight", "output int8: fc",
                   "output int8: /mul_0"}));
}

TEST(PlaceQuantizers, ModelInputsStandApart) {
  GraphBuilder b;
  const int x = b.input();
  const int y = b.input();
  b.output(b.functional("add", "", {x, y}));
  EXPECT_EQ(placed(b, plain_config()),
            (Lines{"input int8: /add_0.input.0", "input int8: /add_0.input.1",
                   "output int8: /add_0"}));
  QuantConfig off = plain_config();
  off.model_input_is_input_quantized = false;
  EXPECT_EQ(placed(b, off), Lines{"output int8: /add_0"});
}

TEST(PlaceQuantizers, ConstantsButNoSingleNumbers) {
  GraphBuilder b;
  int t = b.functional("add", "", {b.input(), b.constant({4})});
  t = b.functional("mul", "", {t, b.constant({})});
  b.output(b.functional("mul", "", {t, b.constant({1})}));
  EXPECT_EQ(placed(b, plain_config()),
            (Lines{"input int8: /add_0.input.0", "input int8: /add_0.input.1",
                   "output int8: /add_0", "output int8: /mul_0",
                   "output int8: /mul_1"}));
}

// A functional batch norm reads them as tensors: input, mean, variance.
TEST(PlaceQuantizers, NotTheStatisticsOfABatchNorm) {
  GraphBuilder b;
  const int t = b.leaf("relu", "relu", {b.input()});
  b.output(b.functional("batch_norm", "", {t, b.constant(), b.constant()}));
  EXPECT_EQ(placed(b, plain_config()),
            (Lines{"input int8: relu.input.0", "output int8: relu",
                   "output int8: /batch_norm_0"}));
}

TEST(PlaceQuantizers, GridPreservingOutputsOnlyWhereNamed) {
  GraphBuilder b;
  int t = b.leaf("conv2d", "conv", {b.input()}, with_weight());
  t = b.leaf("max_pool2d", "pool", {t});
  b.output(b.leaf("flatten", "flatten", {t}));
  QuantConfig config = plain_config();
  EXPECT_EQ(placed(b, config),
            (Lines{"input int8: conv.input.0", "param int4 sym: conv.weight",
                   "output int8: conv"}));
  config.op_type["MaxPool"].is_output_quantized = true;
  EXPECT_EQ(placed(b, config),
            (Lines{"input int8: conv.input.0", "param int4 sym: conv.weight",
                   "output int8: conv", "output int8: pool"}));
}

// The pool quantizes the model input anew, so its reader does not.
TEST(PlaceQuantizers, ModelInputBehindANamedPool) {
  GraphBuilder b;
  const int t = b.leaf("max_pool2d", "pool", {b.input()});
  b.output(b.leaf("linear", "fc", {t}, with_weight()));
  QuantConfig config = plain_config();
  config.op_type["MaxPool"].is_output_quantized = true;
  EXPECT_EQ(placed(b, config),
            (Lines{"output int8: pool", "param int4 sym: fc.weight",
                   "output int8: fc"}));
}

TEST(PlaceQuantizers, SeveralOutputsAndTheDtypeOfEach) {
  GraphBuilder b;
  const int x = b.input();
  const int y = b.leaf("conv2d", "conv", {x}, with_weight());
  OpGraph graph = b.build();
  // As for a module that returns (values, values, indices).
  for (int slot = 1; slot <= 2; ++slot) {
    graph::Tensor tensor;
    tensor.producer = 0;
    tensor.is_floating = slot == 1;
    graph.tensors.push_back(tensor);
    graph.ops[0].outputs.push_back(static_cast<int>(graph.tensors.size()) - 1);
    graph::Site site{static_cast<int>(graph.sites.size()),
                     graph::SiteKind::output, 0, slot, ""};
    graph.ops[0].output_sites.push_back(site.id);
    graph.sites.push_back(site);
  }
  EXPECT_EQ(y, graph.ops[0].outputs.front());
  EXPECT_EQ(quantizer_lines(graph, place(graph, plain_config())),
            (Lines{"input int8: conv.input.0", "param int4 sym: conv.weight",
                   "output int8: conv", "output int8: conv.output.1"}));
}

TEST(PlaceQuantizers, IntegerModelInputHasNone) {
  GraphBuilder b;
  const int ids = b.input({1, 7});
  b.output(b.leaf("relu", "relu", {ids}));
  OpGraph graph = b.build();
  graph.tensors[ids].is_floating = false;
  EXPECT_EQ(quantizer_lines(graph, place(graph, plain_config())),
            Lines{"output int8: relu"});
}

TEST(PlaceQuantizers, OutputsOffLeaveTheModelOutputsOn) {
  GraphBuilder b;
  int t = b.leaf("conv2d", "conv1", {b.input()}, with_weight());
  b.output(b.leaf("flatten", "flatten", {b.leaf("relu", "relu", {t})}));
  QuantConfig config = plain_config();
  config.defaults.ops_is_output_quantized = false;
  config.model_output_is_output_quantized = true;
  EXPECT_EQ(placed(b, config),
            (Lines{"input int8: conv1.input.0", "param int4 sym: conv1.weight",
                   "output int8: relu"}));
}

// Moved only: one quantizer with the input's other reader, not two in a row.
TEST(PlaceQuantizers, ModelOutputThatIsAMovedModelInput) {
  GraphBuilder b;
  const int flat = b.leaf("flatten", "flatten", {b.input()});
  b.output(flat);
  b.output(b.leaf("linear", "fc", {flat}, with_weight()));
  QuantConfig config = plain_config();
  config.model_output_is_output_quantized = true;
  EXPECT_EQ(placed(b, config),
            (Lines{"input int8: flatten.input.0 fc.input.0",
                   "param int4 sym: fc.weight", "output int8: fc"}));
}

TEST(PlaceQuantizers, ReusedModuleHasOneWeightQuantizer) {
  GraphBuilder b;
  int t = b.leaf("conv2d", "conv", {b.input()}, with_weight());
  b.output(b.leaf("conv2d", "conv", {t}, with_weight()));
  EXPECT_EQ(placed(b, plain_config()),
            (Lines{"input int8: conv.input.0", "param int4 sym: conv.weight",
                   "output int8: conv", "output int8: conv:1"}));
}

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

TEST(PlaceQuantizers, OpTypeInputIsQuantizedWhereItIsMade) {
  GraphBuilder b;
  const int x = b.input();
  int t = b.leaf("relu", "relu", {x});
  t = b.leaf("max_pool2d", "pool", {t});
  b.output(b.leaf("linear", "fc", {t}, with_weight()));
  b.output(b.leaf("linear", "head", {x}, with_weight()));
  QuantConfig config;
  config.op_type["Gemm"].is_input_quantized = true;
  EXPECT_EQ(placed(b, config),
            (Lines{"output int8: relu", "input int8: head.input.0"}));
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

TEST(QuantizerOfInput, LooksUpstreamThroughDataMovementOnly) {
  GraphBuilder b;
  int t = b.leaf("conv2d", "conv1", {b.input()}, with_weight());
  t = b.leaf("max_pool2d", "pool", {t});
  t = b.leaf("linear", "fc", {b.bare("view", {t})}, with_weight());
  t = b.leaf("relu", "relu", {t});
  b.output(b.leaf("softmax", "softmax", {t}));
  const OpGraph graph = b.build();
  const Placement placement = place(graph, fusing_config());
  const auto reads = [&](const char* op, int slot) {
    const int q =
        quantizer_of_input(graph, placement, op_named(graph, op), slot);
    return q == graph::kNone
               ? std::string("none")
               : graph.site_name(placement.quantizers[q].sites.front());
  };
  EXPECT_EQ(reads("conv1", 0), "conv1.input.0");
  EXPECT_EQ(reads("pool", 0), "conv1");
  EXPECT_EQ(reads("fc", 0), "conv1");
  EXPECT_EQ(reads("relu", 0), "none");
  EXPECT_EQ(reads("softmax", 0), "relu");
  EXPECT_EQ(reads("softmax", 1), "none");
}

}  // namespace
}  // namespace aimetpp::config
