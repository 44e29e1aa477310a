// SPDX-License-Identifier: BSD-3-Clause
// Where quantizers stand, on graphs small enough to place them by hand.
#include "config/placement.h"

#include <gtest/gtest.h>

#include <string>

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
