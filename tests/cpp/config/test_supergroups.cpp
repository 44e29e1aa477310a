// SPDX-License-Identifier: BSD-3-Clause
#include "config/supergroups.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "config/placement_fixtures.h"
#include "support/graph_builder.h"

namespace aimetpp::config {
namespace {

using testing::GraphBuilder;
using testing::with_weight;
using Patterns = std::vector<std::vector<std::string>>;

// "0: conv1 relu1" for each supergroup.
std::vector<std::string> matches(const graph::OpGraph& graph,
                                 const Patterns& patterns) {
  std::vector<std::string> lines;
  for (const Supergroup& group : match_supergroups(graph, patterns)) {
    std::string line = std::to_string(group.pattern) + ":";
    for (const int op : group.ops) {
      line += " " + graph.ops[op].name;
    }
    lines.push_back(line);
  }
  return lines;
}

using Lines = std::vector<std::string>;

TEST(MatchSupergroups, FindsChainsOfModulesAndFunctionalOps) {
  GraphBuilder b;
  int t = b.leaf("conv2d", "conv1", {b.input()}, with_weight());
  t = b.functional("relu", "", {t});
  t = b.leaf("conv2d", "conv2", {t}, with_weight());
  b.output(b.leaf("relu", "relu", {t}));
  EXPECT_EQ(matches(b.build(), {{"Conv", "Relu"}}),
            (Lines{"0: conv1 /relu_0", "0: conv2 relu"}));
}

TEST(MatchSupergroups, LongestPatternFirstThenFileOrder) {
  GraphBuilder b;
  int t = b.leaf("conv2d", "conv", {b.input()}, with_weight());
  t = b.functional("add", "", {t, b.input()});
  b.output(b.leaf("relu", "relu", {t}));
  const graph::OpGraph graph = b.build();
  EXPECT_EQ(matches(graph, {{"Conv", "Add"}, {"Conv", "Add", "Relu"}}),
            Lines{"1: conv /add_0 relu"});
  // Disjoint: the first of two equally long ones takes the add.
  EXPECT_EQ(matches(graph, {{"Conv", "Add"}, {"Add", "Relu"}}),
            Lines{"0: conv /add_0"});
  EXPECT_EQ(matches(graph, {{"Add", "Relu"}, {"Conv", "Add"}}),
            Lines{"0: /add_0 relu"});
}

TEST(MatchSupergroups, NeverAcrossASecondReaderOrAModelOutput) {
  GraphBuilder split;
  const int conv = split.leaf("conv2d", "conv", {split.input()}, with_weight());
  const int relu = split.leaf("relu", "relu", {conv});
  split.output(split.functional("add", "", {relu, conv}));
  EXPECT_EQ(matches(split.build(), {{"Conv", "Relu"}}), Lines{});

  GraphBuilder shown;
  const int inner =
      shown.leaf("conv2d", "conv", {shown.input()}, with_weight());
  shown.output(inner);
  shown.output(shown.leaf("relu", "relu", {inner}));
  EXPECT_EQ(matches(shown.build(), {{"Conv", "Relu"}}), Lines{});
}

TEST(MatchSupergroups, ReadingASizeIsNoSecondReader) {
  GraphBuilder b;
  const int conv = b.leaf("conv2d", "conv", {b.input()}, with_weight());
  b.bare("size", {conv});
  b.output(b.leaf("relu", "relu", {conv}));
  EXPECT_EQ(matches(b.build(), {{"Conv", "Relu"}}), Lines{"0: conv relu"});
}

TEST(MatchSupergroups, StepsOverFoldableBatchNormUnlessNamed) {
  GraphBuilder b;
  int t = b.leaf("conv2d", "conv", {b.input()}, with_weight());
  t = b.leaf("batch_norm", "bn", {t}, with_weight(0, {4}));
  b.output(b.leaf("relu", "relu", {t}));
  const graph::OpGraph graph = b.build();
  EXPECT_EQ(matches(graph, {{"Conv", "Relu"}}), Lines{"0: conv bn relu"});
  EXPECT_EQ(matches(graph, {{"Conv", "BatchNormalization", "Relu"}}),
            Lines{"0: conv bn relu"});
  // Both would match; the longer pattern is taken.
  EXPECT_EQ(matches(graph,
                    {{"Conv", "Relu"}, {"Conv", "BatchNormalization", "Relu"}}),
            Lines{"1: conv bn relu"});
}

TEST(MatchSupergroups, StepsOverDropoutAndIdentity) {
  GraphBuilder b;
  int t = b.leaf("linear", "fc", {b.input()}, with_weight());
  t = b.leaf("dropout", "drop", {t});
  b.output(b.leaf("relu", "relu", {t}));
  EXPECT_EQ(matches(b.build(), {{"Gemm", "Relu"}}), Lines{"0: fc drop relu"});
}

TEST(MatchSupergroups, DepthwiseAndThreeDimensionalConvolutionsToo) {
  GraphBuilder b;
  int t =
      b.leaf("conv2d", "depthwise", {b.input()}, with_weight(1, {8, 1, 3, 3}));
  t = b.leaf("relu6", "relu6", {t});
  t = b.leaf("conv3d", "conv3d", {t}, with_weight(1, {8, 8, 3, 3, 3}));
  b.output(b.leaf("relu", "relu", {t}));
  EXPECT_EQ(matches(b.build(), {{"Conv", "Relu"}, {"Conv", "Clip"}}),
            (Lines{"1: depthwise relu6", "0: conv3d relu"}));
}

TEST(MatchSupergroups, StopsAtAViewBetween) {
  GraphBuilder b;
  int t = b.leaf("conv2d", "conv", {b.input()}, with_weight());
  t = b.bare("view", {t});
  b.output(b.leaf("relu", "relu", {t}));
  EXPECT_EQ(matches(b.build(), {{"Conv", "Relu"}}), Lines{});
}

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

}  // namespace
}  // namespace aimetpp::config
