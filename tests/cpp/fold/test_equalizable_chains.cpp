// SPDX-License-Identifier: BSD-3-Clause
#include "fold/equalizable_chains.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "support/graph_builder.h"

namespace aimetpp::fold {
namespace {

using testing::GraphBuilder;
using testing::LeafOptions;
using testing::with_weight;
using Lines = std::vector<std::string>;

// "conv1 (relu) conv2" for each chain.
Lines chains(const graph::OpGraph& graph, Relu6 relu6 = Relu6::stops) {
  Lines lines;
  for (const EqualizableChain& chain : equalizable_chains(graph, relu6)) {
    std::string line = graph.ops[chain.layers.front()].name;
    for (std::size_t i = 1; i < chain.layers.size(); ++i) {
      for (const int op : chain.between[i - 1]) {
        line += " (" + graph.ops[op].name + ")";
      }
      line += " " + graph.ops[chain.layers[i]].name;
    }
    lines.push_back(line);
  }
  return lines;
}

LeafOptions conv(std::vector<std::int64_t> weight = {4, 4, 3, 3}) {
  LeafOptions options = with_weight(1, weight);
  options.shape = {1, weight.front(), 8, 8};
  return options;
}

LeafOptions depthwise() { return conv({4, 1, 3, 3}); }

LeafOptions made(std::vector<std::int64_t> shape = {1, 4, 8, 8}) {
  LeafOptions options;
  options.shape = std::move(shape);
  return options;
}

TEST(EqualizableChains, PairsAndDepthwiseTriples) {
  GraphBuilder b;
  int t = b.leaf("conv2d", "conv1", {b.input()}, conv());
  t = b.leaf("relu", "relu1", {t}, made());
  t = b.leaf("conv2d", "dw", {t}, depthwise());
  t = b.functional("relu", "", {t}, made());
  t = b.leaf("conv2d", "conv2", {t}, conv());
  b.output(b.leaf("conv2d", "conv3", {t}, conv()));
  EXPECT_EQ(chains(b.build()),
            (Lines{"conv1 (relu1) dw (/relu_0) conv2", "conv2 conv3"}));
}

TEST(EqualizableChains, DepthwiseAtEitherEnd) {
  GraphBuilder b;
  int t = b.leaf("conv2d", "dw1", {b.input()}, depthwise());
  t = b.leaf("conv2d", "conv", {t}, conv());
  t = b.leaf("conv2d", "dw2", {t}, depthwise());
  b.output(b.leaf("sigmoid", "sigmoid", {t}, made()));
  EXPECT_EQ(chains(b.build()), (Lines{"dw1 conv", "conv dw2"}));
}

TEST(EqualizableChains, OnlyWhatAFactorPasses) {
  for (const char* kind : {"relu", "leaky_relu", "prelu", "dropout",
                           "max_pool2d", "avg_pool2d", "interpolate"}) {
    GraphBuilder b;
    int t = b.leaf("conv2d", "conv1", {b.input()}, conv());
    t = b.leaf(kind, "between", {t}, made());
    b.output(b.leaf("conv2d", "conv2", {t}, conv()));
    EXPECT_EQ(chains(b.build()), Lines{"conv1 (between) conv2"}) << kind;
  }
  for (const char* kind :
       {"sigmoid", "gelu", "hardswish", "relu6", "batch_norm", "softmax"}) {
    GraphBuilder b;
    int t = b.leaf("conv2d", "conv1", {b.input()}, conv());
    t = b.leaf(kind, "between", {t}, made());
    b.output(b.leaf("conv2d", "conv2", {t}, conv()));
    EXPECT_EQ(chains(b.build()), Lines{}) << kind;
  }
}

TEST(EqualizableChains, Relu6ModulesWhereTheyAreReplaced) {
  GraphBuilder b;
  int t = b.leaf("conv2d", "conv1", {b.input()}, conv());
  LeafOptions relu6 = made();
  relu6.type = "ReLU6";
  t = b.leaf("hardtanh", "relu6", {t}, relu6);
  t = b.leaf("conv2d", "conv2", {t}, conv());
  t = b.functional("relu6", "", {t}, made());
  t = b.leaf("conv2d", "conv3", {t}, conv());
  t = b.leaf("hardtanh", "hardtanh", {t}, made());
  b.output(b.leaf("conv2d", "conv4", {t}, conv()));
  EXPECT_EQ(chains(b.build(), Relu6::replaced), Lines{"conv1 (relu6) conv2"});
  EXPECT_EQ(chains(b.build(), Relu6::stops), Lines{});
}

// The same module once between two layers and once at the end.
TEST(EqualizableChains, AReluThatIsAlsoCalledOutsideChainsStops) {
  LeafOptions relu6 = made();
  relu6.type = "ReLU6";
  const auto net = [&](bool ends_in_relu6) {
    GraphBuilder b;
    int t = b.leaf("conv2d", "conv1", {b.input()}, conv());
    t = b.leaf("hardtanh", "act", {t}, relu6);
    t = b.leaf("conv2d", "conv2", {t}, conv());
    t = b.leaf("hardtanh", "act", {t}, relu6);
    t = b.leaf("conv2d", "conv3", {t}, conv());
    if (ends_in_relu6) t = b.leaf("hardtanh", "act", {t}, relu6);
    b.output(t);
    return b.build();
  };
  EXPECT_EQ(chains(net(false), Relu6::replaced),
            (Lines{"conv1 (act) conv2", "conv2 (act:1) conv3"}));
  EXPECT_EQ(chains(net(true), Relu6::replaced), Lines{});
}

TEST(EqualizableChains, PastOpsThatTheCallerKnowsToDoNothing) {
  GraphBuilder b;
  int t = b.leaf("conv2d", "conv1", {b.input()}, conv());
  t = b.functional("batch_norm", "", {t}, made());
  b.output(b.leaf("conv2d", "conv2", {t}, conv()));
  const graph::OpGraph graph = b.build();
  EXPECT_TRUE(equalizable_chains(graph, Relu6::stops).empty());
  EXPECT_EQ(equalizable_chains(graph, Relu6::stops, {1}).size(), 1U);
}

TEST(EqualizableChains, NotAcrossOtherReadersOrModelOutputs) {
  GraphBuilder residual;
  const int first =
      residual.leaf("conv2d", "conv1", {residual.input()}, conv());
  const int second = residual.leaf("conv2d", "conv2", {first}, conv());
  residual.output(residual.functional("add", "", {first, second}, made()));
  EXPECT_EQ(chains(residual.build()), Lines{});

  GraphBuilder shown;
  const int inner = shown.leaf("conv2d", "conv1", {shown.input()}, conv());
  shown.output(inner);
  shown.output(shown.leaf("conv2d", "conv2", {inner}, conv()));
  EXPECT_EQ(chains(shown.build()), Lines{});
}

TEST(EqualizableChains, NotAModuleThatIsCalledTwice) {
  GraphBuilder b;
  int t = b.leaf("conv2d", "conv1", {b.input()}, conv());
  t = b.leaf("conv2d", "shared", {t}, conv());
  t = b.leaf("conv2d", "shared", {t}, conv());
  b.output(b.leaf("conv2d", "conv2", {t}, conv()));
  EXPECT_EQ(chains(b.build()), Lines{});
}

TEST(EqualizableChains, LinearLayersOfAnyRankButNotAcrossPooling) {
  GraphBuilder b;
  LeafOptions linear = with_weight(1, {4, 4});
  linear.shape = {1, 7, 4};
  int t = b.leaf("linear", "fc1", {b.input({1, 7, 4})}, linear);
  t = b.leaf("relu", "relu", {t}, made({1, 7, 4}));
  t = b.leaf("linear", "fc2", {t}, linear);
  t = b.leaf("max_pool1d", "pool", {t}, made({1, 7, 4}));
  b.output(b.leaf("linear", "fc3", {t}, linear));
  EXPECT_EQ(chains(b.build()), Lines{"fc1 (relu) fc2"});

  GraphBuilder mixed;
  const int c = mixed.leaf("conv2d", "conv", {mixed.input()}, conv());
  mixed.output(mixed.leaf("linear", "fc", {c}, linear));
  EXPECT_EQ(chains(mixed.build()), Lines{});
}

}  // namespace
}  // namespace aimetpp::fold
