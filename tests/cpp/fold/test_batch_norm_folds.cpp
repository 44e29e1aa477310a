// SPDX-License-Identifier: BSD-3-Clause
#include "fold/batch_norm_folds.h"

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "core/text.h"
#include "support/graph_builder.h"

namespace aimetpp::fold {
namespace {

using testing::GraphBuilder;
using testing::with_weight;
using Pairs = std::vector<std::pair<int, int>>;

TEST(FoldableBatchNorms, BehindConvTransposedConvAndLinear) {
  GraphBuilder b;
  int t = b.leaf("conv1d", "conv", {b.input()}, with_weight(1, {4, 4, 3}));
  t = b.leaf("batch_norm", "bn1", {t}, with_weight(0, {4}));
  t = b.leaf("conv_transpose2d", "up", {t}, with_weight());
  t = b.leaf("batch_norm", "bn2", {t}, with_weight(0, {4}));
  t = b.leaf("linear", "fc", {t}, with_weight());
  t = b.leaf("batch_norm", "bn3", {t}, with_weight(0, {4}));
  b.output(b.leaf("batch_norm", "bn4", {t}, with_weight(0, {4})));
  EXPECT_EQ(foldable_batch_norms(b.build()), (Pairs{{0, 1}, {2, 3}, {4, 5}}));
}

TEST(FoldableBatchNorms, NotWhereSomethingElseReadsTheResult) {
  GraphBuilder b;
  const int conv = b.leaf("conv2d", "conv", {b.input()}, with_weight());
  const int bn = b.leaf("batch_norm", "bn", {conv}, with_weight(0, {4}));
  b.output(b.functional("add", "", {bn, conv}));
  EXPECT_EQ(foldable_batch_norms(b.build()), Pairs{});
}

TEST(FoldableBatchNorms, NotOverTheTokensOfALinearLayer) {
  GraphBuilder b;
  testing::LeafOptions linear = with_weight();
  linear.shape = {1, 7, 4};
  const int t = b.leaf("linear", "fc", {b.input({1, 7, 4})}, linear);
  b.output(b.leaf("batch_norm", "bn", {t}, with_weight(0, {7})));
  EXPECT_EQ(foldable_batch_norms(b.build()), Pairs{});
}

// bn(fc(x).flatten(0, 1)).view(...): the last axis stays what it is.
TEST(FoldableBatchNorms, OverMergedTokensOfALinearLayer) {
  for (const bool keeps_channels : {true, false}) {
    GraphBuilder b;
    testing::LeafOptions linear = with_weight();
    linear.shape = {2, 7, 4};
    int t = b.leaf("linear", "fc", {b.input({2, 7, 4})}, linear);
    testing::LeafOptions merged;
    merged.shape = keeps_channels ? std::vector<std::int64_t>{14, 4}
                                  : std::vector<std::int64_t>{2, 28};
    t = b.leaf("flatten", "flatten", {t}, merged);
    testing::LeafOptions norm = with_weight(0, {4});
    norm.shape = merged.shape;
    t = b.leaf("batch_norm", "bn", {t}, norm);
    b.output(t);
    EXPECT_EQ(foldable_batch_norms(b.build()),
              keeps_channels ? (Pairs{{0, 2}}) : Pairs{});
  }
}

TEST(FoldableBatchNorms, NotOverAReshapedConvolution) {
  GraphBuilder b;
  testing::LeafOptions conv = with_weight();
  conv.shape = {2, 4, 3, 3};
  testing::LeafOptions rows;
  rows.shape = {24, 3};
  int t = b.leaf("conv2d", "conv", {b.input()}, conv);
  t = b.leaf("flatten", "flatten", {t}, rows);
  b.output(b.leaf("batch_norm", "bn", {t}, with_weight(0, {3})));
  EXPECT_EQ(foldable_batch_norms(b.build()), Pairs{});
}

// [channels, places]: the convolution's channels are on axis 0 of one sample,
// where a batch norm sees samples.
TEST(FoldableBatchNorms, NotOverASingleSampleOfAConvolution) {
  for (const bool batched : {true, false}) {
    GraphBuilder b;
    testing::LeafOptions conv = with_weight(1, {4, 4, 1});
    conv.shape = batched ? std::vector<std::int64_t>{4, 4, 4}
                         : std::vector<std::int64_t>{4, 4};
    testing::LeafOptions norm = with_weight(0, {4});
    norm.shape = conv.shape;
    int t = b.leaf("conv1d", "conv1", {b.input(conv.shape)}, conv);
    t = b.leaf("batch_norm", "bn1", {t}, norm);
    t = b.leaf("relu", "relu", {t});
    t = b.leaf("batch_norm", "bn2", {t}, norm);
    b.output(b.leaf("conv1d", "conv2", {t}, conv));
    const graph::OpGraph graph = b.build();
    EXPECT_EQ(foldable_batch_norms(graph), batched ? (Pairs{{0, 1}}) : Pairs{});
    EXPECT_EQ(forward_foldable_batch_norms(graph),
              batched ? (Pairs{{3, 4}}) : Pairs{});
  }
}

// A convolution shared by two heads with a batch norm each can't fold both.
TEST(FoldableBatchNorms, ReusedModulesFoldOnlyTogether) {
  GraphBuilder apart;
  for (const char* bn : {"bn1", "bn2"}) {
    const int t = apart.leaf("conv2d", "conv", {apart.input()}, with_weight());
    apart.output(apart.leaf("batch_norm", bn, {t}, with_weight(0, {4})));
  }
  EXPECT_EQ(foldable_batch_norms(apart.build()), Pairs{});

  GraphBuilder together;
  for (int call = 0; call < 2; ++call) {
    const int t =
        together.leaf("conv2d", "conv", {together.input()}, with_weight());
    together.output(
        together.leaf("batch_norm", "bn", {t}, with_weight(0, {4})));
  }
  EXPECT_EQ(foldable_batch_norms(together.build()), (Pairs{{0, 1}, {2, 3}}));
}

// The weight tied to another layer must stay as it is.
TEST(FoldableBatchNorms, NotWhereAnotherModuleReadsTheWeight) {
  GraphBuilder b;
  const int t = b.leaf("linear", "tied", {b.input({1, 4})}, with_weight());
  const int u = b.leaf("linear", "fc", {t}, with_weight());
  b.output(b.leaf("batch_norm", "bn", {u}, with_weight(0, {4})));
  graph::OpGraph graph = b.build();
  EXPECT_EQ(foldable_batch_norms(graph), (Pairs{{1, 2}}));
  graph.ops[0].params[0].parameter = graph.ops[1].params[0].parameter;
  EXPECT_EQ(foldable_batch_norms(graph), Pairs{});
}

TEST(FoldableBatchNorms, NotWhereTheWeightIsReadOutsideTheLayer) {
  GraphBuilder b;
  const int t = b.leaf("linear", "fc", {b.input({1, 4})}, with_weight());
  const int bn = b.leaf("batch_norm", "bn", {t}, with_weight(0, {4}));
  const int weight = b.constant({4, 4});
  b.output(b.functional("matmul", "", {bn, weight}));
  graph::OpGraph graph = b.build();
  graph.tensors[weight].origin = graph::Origin::parameter;
  graph.tensors[weight].parameter = graph.ops[0].params[0].parameter;
  EXPECT_EQ(foldable_batch_norms(graph), Pairs{});
}

TEST(ForwardFoldableBatchNorms, WhatDoesNotFoldBackward) {
  GraphBuilder b;
  int t = b.leaf("batch_norm", "bn1", {b.input()}, with_weight(0, {4}));
  t = b.leaf("conv2d", "conv1", {t}, with_weight());
  t = b.leaf("batch_norm", "bn2", {t}, with_weight(0, {4}));  // backward
  t = b.leaf("conv2d", "conv2", {t}, with_weight());
  t = b.leaf("relu", "relu", {t});
  t = b.leaf("batch_norm", "bn3", {t}, with_weight(0, {4}));
  t = b.leaf("dropout", "drop", {t});
  t = b.leaf("conv2d", "conv3", {t}, with_weight());
  t = b.leaf("relu", "relu2", {t});
  t = b.leaf("batch_norm", "bn4", {t}, with_weight(0, {4}));
  b.output(b.leaf("conv_transpose2d", "up", {t}, with_weight()));
  EXPECT_EQ(forward_foldable_batch_norms(b.build()), (Pairs{{0, 1}, {5, 7}}));
}

TEST(ForwardFoldableBatchNorms, NotWhereTheNormalizedValuesAreReadTwice) {
  GraphBuilder b;
  const int bn = b.leaf("batch_norm", "bn", {b.input()}, with_weight(0, {4}));
  const int conv = b.leaf("conv2d", "conv", {bn}, with_weight());
  b.output(b.functional("add", "", {bn, conv}));
  EXPECT_EQ(forward_foldable_batch_norms(b.build()), Pairs{});
}

TEST(NormalizedInputs, ThroughReluAndRelu6ToEveryReader) {
  GraphBuilder b;
  testing::LeafOptions relu6;
  relu6.type = "ReLU6";
  const int bn1 = b.leaf("batch_norm", "bn1", {b.input()}, with_weight(0, {4}));
  const int relu = b.functional("relu", "", {bn1});
  const int left = b.leaf("conv2d", "left", {relu}, with_weight());
  int right = b.leaf("conv2d", "right", {relu}, with_weight());
  right = b.leaf("batch_norm", "bn2", {right}, with_weight(0, {4}));
  right = b.leaf("hardtanh", "relu6", {right}, relu6);
  right = b.leaf("conv2d", "next", {right}, with_weight());
  const int sum = b.functional("add", "", {left, right});
  b.output(b.leaf("conv2d", "last", {sum}, with_weight()));
  const graph::OpGraph graph = b.build();
  std::vector<std::string> lines;
  for (const NormalizedInput& input : normalized_inputs(graph)) {
    lines.push_back(concat(graph.ops[input.batch_norm].name, " ",
                           static_cast<int>(input.activation), " ",
                           graph.ops[input.layer].name));
  }
  EXPECT_EQ(lines, (std::vector<std::string>{"bn1 1 left", "bn1 1 right",
                                             "bn2 2 next"}));
}

TEST(FollowingActivation, OfTheOnlyReader) {
  GraphBuilder b;
  const int conv1 = b.leaf("conv2d", "conv1", {b.input()}, with_weight());
  const int drop = b.leaf("dropout", "drop", {conv1});
  const int relu = b.functional("relu", "", {drop});
  const int conv2 = b.leaf("conv2d", "conv2", {relu}, with_weight());
  const int relu6 = b.functional("relu6", "", {conv2});
  const int conv3 = b.leaf("conv2d", "conv3", {relu6}, with_weight());
  const int twice = b.functional("relu", "", {conv3});
  b.output(b.functional("add", "", {twice, conv3}));
  const graph::OpGraph graph = b.build();
  EXPECT_EQ(following_activation(graph, 0), Activation::relu);
  EXPECT_EQ(following_activation(graph, 3), Activation::relu6);
  EXPECT_EQ(following_activation(graph, 5), Activation::none);
}

}  // namespace
}  // namespace aimetpp::fold
