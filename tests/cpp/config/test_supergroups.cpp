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

}  // namespace
}  // namespace aimetpp::config
