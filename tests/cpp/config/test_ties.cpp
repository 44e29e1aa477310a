// SPDX-License-Identifier: BSD-3-Clause
// Sites that share a quantizer because an op puts all its inputs on one grid.
#include <gtest/gtest.h>

#include <string>

#include "config/placement.h"
#include "config/placement_fixtures.h"
#include "support/graph_builder.h"

namespace aimetpp::config {
namespace {

using graph::OpGraph;
using testing::fusing_config;
using testing::GraphBuilder;
using testing::Lines;
using testing::place;
using testing::placed;
using testing::plain_config;
using testing::site_named;
using testing::with_weight;

TEST(Ties, ConcatenationSharesWithItsProducers) {
  GraphBuilder b;
  const int x = b.input();
  int left = b.leaf("conv2d", "left", {x}, with_weight());
  left = b.leaf("relu", "relu", {left});
  const int right = b.leaf("conv2d", "right", {x}, with_weight());
  b.output(b.functional("cat", "", {left, right}));
  EXPECT_EQ(
      placed(b, fusing_config()),
      (Lines{"input int8: left.input.0 right.input.0",
             "param int4 sym: left.weight", "output int8: relu right /cat_0",
             "param int4 sym: right.weight"}));
}

TEST(Ties, ThroughDataMovement) {
  GraphBuilder b;
  const int x = b.input();
  int left = b.leaf("relu", "left", {x});
  left = b.leaf("max_pool2d", "pool", {left});
  const int right = b.bare("view", {b.leaf("relu", "right", {x})});
  b.output(b.functional("cat", "", {left, right}));
  EXPECT_EQ(placed(b, plain_config()),
            (Lines{"input int8: left.input.0 right.input.0",
                   "output int8: left right /cat_0"}));
}

TEST(Ties, ModelInputAndItsOtherReaders) {
  GraphBuilder b;
  const int x = b.input();
  const int y = b.leaf("conv2d", "conv", {x}, with_weight());
  b.output(b.functional("cat", "", {x, y}));
  EXPECT_EQ(placed(b, plain_config()),
            (Lines{"output int8: conv.input.0 conv /cat_0.input.0 /cat_0",
                   "param int4 sym: conv.weight"}));
}

TEST(Ties, TwoConcatenationsOfOneTensorAreOne) {
  GraphBuilder b;
  const int x = b.input();
  const int one = b.leaf("relu", "one", {x});
  const int two = b.leaf("relu", "two", {x});
  const int three = b.leaf("relu", "three", {x});
  b.output(b.functional("cat", "", {one, two}));
  b.output(b.functional("cat", "", {two, three}));
  EXPECT_EQ(placed(b, plain_config()),
            (Lines{"input int8: one.input.0 two.input.0 three.input.0",
                   "output int8: one two three /cat_0 /cat_1"}));
}

// DenseNet's pattern: a concatenation of a concatenation.
TEST(Ties, ChainOfConcatenations) {
  GraphBuilder b;
  const int one = b.leaf("relu", "one", {b.input()});
  const int two = b.leaf("relu", "two", {one});
  const int inner = b.functional("cat", "", {one, two});
  const int three = b.leaf("relu", "three", {inner});
  b.output(b.functional("stack", "", {inner, three}));
  EXPECT_EQ(placed(b, plain_config()),
            (Lines{"input int8: one.input.0",
                   "output int8: one two /cat_0 three /stack_0"}));
}

// relu's convolution inside [Conv, Relu] has no quantizer, nor does `off`.
TEST(Ties, OnlyQuantizersThatAreThere) {
  GraphBuilder b;
  const int x = b.input();
  const int off = b.leaf("softmax", "off", {x});
  int on = b.leaf("conv2d", "conv", {x}, with_weight());
  on = b.leaf("relu", "relu", {on});
  b.output(b.functional("cat", "", {off, on}));
  QuantConfig config = fusing_config();
  config.op_type["Softmax"].is_output_quantized = false;
  EXPECT_EQ(placed(b, config),
            (Lines{"input int8: off.input.0 conv.input.0",
                   "param int4 sym: conv.weight", "output int8: relu /cat_0"}));
  config.op_type["Concat"].is_output_quantized = false;
  EXPECT_EQ(placed(b, config),
            (Lines{"input int8: off.input.0 conv.input.0",
                   "param int4 sym: conv.weight", "output int8: relu"}));
}

struct ConstraintCase {
  const char* description;
  std::optional<EncodingConstraints> relu, sigmoid, concat;
  std::optional<double> min, max;
};

class SharedConstraints : public ::testing::TestWithParam<ConstraintCase> {};

// A range must hold the values of every site that shares it.
TEST_P(SharedConstraints, CoverAllSites) {
  GraphBuilder b;
  const int relu = b.leaf("relu", "relu", {b.input()});
  const int sigmoid = b.leaf("sigmoid", "sigmoid", {b.input()});
  b.output(b.functional("cat", "", {relu, sigmoid}));
  const OpGraph graph = b.build();
  QuantConfig config = plain_config();
  config.op_type["Relu"].encoding_constraints = GetParam().relu;
  config.op_type["Sigmoid"].encoding_constraints = GetParam().sigmoid;
  config.op_type["Concat"].encoding_constraints = GetParam().concat;
  const Placement placement = place(graph, config);
  const QuantizerSpec& spec =
      placement
          .quantizers[placement.quantizer_of_site[site_named(graph, "/cat_0")]];
  ASSERT_EQ(spec.sites.size(), 3U);
  EXPECT_EQ(spec.constraints ? spec.constraints->min : std::nullopt,
            GetParam().min);
  EXPECT_EQ(spec.constraints ? spec.constraints->max : std::nullopt,
            GetParam().max);
}

INSTANTIATE_TEST_SUITE_P(
    Cases, SharedConstraints,
    ::testing::Values(
        ConstraintCase{"one free site frees all", {{0.0, {}}}, {}, {}, {}, {}},
        ConstraintCase{"hull", {{0.0, 6.0}}, {{-1.0, 1.0}}, {}, -1.0, 6.0},
        ConstraintCase{
            "bound of one only", {{0.0, {}}}, {{0.0, 1.0}}, {}, 0.0, {}},
        ConstraintCase{"the concatenation's own decides",
                       {{0.0, {}}},
                       {},
                       {{-2.0, 2.0}},
                       -2.0,
                       2.0}),
    [](const auto& param_info) {
      std::string name = param_info.param.description;
      std::erase_if(name, [](char c) { return std::isalnum(c) == 0; });
      return name;
    });

// In graph order relu, tanh, cat: the last one whose op type says so decides.
TEST(Ties, SymmetryOfTheLastOpTypeThatSaysSo) {
  GraphBuilder b;
  const int relu = b.leaf("relu", "relu", {b.input()});
  const int tanh = b.leaf("tanh", "tanh", {b.input()});
  b.output(b.functional("cat", "", {relu, tanh}));
  QuantConfig config = plain_config();
  const auto tied = [&] { return placed(b, config)[1]; };
  EXPECT_EQ(tied(), "output int8: relu tanh /cat_0");
  config.op_type["Relu"].is_symmetric = true;
  EXPECT_EQ(tied(), "output int8 sym: relu tanh /cat_0");
  config.op_type["Tanh"].is_symmetric = false;
  EXPECT_EQ(tied(), "output int8: relu tanh /cat_0");
  config.op_type["Concat"].is_symmetric = true;
  EXPECT_EQ(tied(), "output int8 sym: relu tanh /cat_0");
}

}  // namespace
}  // namespace aimetpp::config
