// SPDX-License-Identifier: BSD-3-Clause
// Which quantizers change precision together, on graphs grouped by hand.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "config/placement_fixtures.h"
#include "groups/quantizer_group.h"
#include "support/graph_builder.h"

namespace aimetpp::groups {
namespace {

using graph::OpGraph;
using testing::fusing_config;
using testing::GraphBuilder;
using testing::LeafOptions;
using testing::place;
using testing::plain_config;
using testing::with_weight;
using Lines = std::vector<std::string>;

// "relu1 | relu1 + conv2.weight | relu1 conv2": name, the first sites of the
// quantizers, the ops.
Lines group_lines(const OpGraph& graph, const config::Placement& placement) {
  Lines lines;
  for (const QuantizerGroup& group : build_groups(graph, placement)) {
    std::string line = group.name + " |";
    std::string separator = " ";
    for (const auto& quantizers :
         {group.activation_quantizers, group.param_quantizers}) {
      for (const int quantizer : quantizers) {
        line += std::exchange(separator, " + ") +
                graph.site_name(placement.quantizers[quantizer].sites.front());
      }
    }
    line += " |";
    for (const int op : group.ops) {
      line += " " + graph.ops[op].name;
    }
    lines.push_back(line);
  }
  return lines;
}

Lines grouped(const GraphBuilder& builder, const config::QuantConfig& config) {
  const OpGraph graph = builder.build();
  const config::Placement placement = place(graph, config);
  // Whatever the graph: every quantizer is in exactly one group.
  std::vector<int> members;
  for (const QuantizerGroup& group : build_groups(graph, placement)) {
    std::ranges::copy(group.activation_quantizers, std::back_inserter(members));
    std::ranges::copy(group.param_quantizers, std::back_inserter(members));
  }
  std::ranges::sort(members);
  std::vector<int> all(placement.quantizers.size());
  for (std::size_t i = 0; i < all.size(); ++i) {
    all[i] = static_cast<int>(i);
  }
  EXPECT_EQ(members, all);
  return group_lines(graph, placement);
}

TEST(BuildGroups, Chain) {
  GraphBuilder b;
  int t = b.leaf("conv2d", "conv1", {b.input()}, with_weight());
  t = b.leaf("relu", "relu1", {t});
  b.output(b.leaf("conv2d", "conv2", {t}, with_weight()));
  EXPECT_EQ(
      grouped(b, fusing_config()),
      (Lines{"conv1.input.0 | conv1.input.0 + conv1.weight | conv1",
             "relu1 | relu1 + conv2.weight | relu1 conv2", "conv2 | conv2 |"}));
}

// conv1-relu1 -> {conv2-relu2, conv3} -> add-relu3-pool, max_pool(relu1) -> cat
// -> flatten -> fc. The pools and flatten are walked through: cat is tied to
// relu3 and relu1, and fc's weights meet that activation.
TEST(BuildGroups, BranchesConcatenationAndFlatten) {
  GraphBuilder b;
  int relu1 = b.leaf("conv2d", "conv1", {b.input()}, with_weight());
  relu1 = b.leaf("relu", "relu1", {relu1});
  int left = b.leaf("conv2d", "conv2", {relu1}, with_weight());
  left = b.leaf("relu", "relu2", {left});
  const int right = b.leaf("conv2d", "conv3", {relu1}, with_weight());
  int t = b.functional("add", "", {left, right});
  t = b.leaf("relu", "relu3", {t});
  t = b.leaf("max_pool2d", "pool", {t});
  t = b.functional("cat", "", {t, b.functional("max_pool2d", "", {relu1})});
  t = b.leaf("flatten", "flatten", {t});
  b.output(b.leaf("linear", "fc", {t}, with_weight()));
  EXPECT_EQ(
      grouped(b, fusing_config()),
      (Lines{"conv1.input.0 | conv1.input.0 + conv1.weight | conv1",
             "relu1 | relu1 + conv2.weight + conv3.weight + fc.weight | relu1 "
             "conv2 conv3 relu3 /cat_0 fc",
             "relu2 | relu2 | relu2", "conv3 | conv3 |", "fc | fc |"}));
}

TEST(BuildGroups, ResidualAddIsAMember) {
  GraphBuilder b;
  const int x = b.leaf("conv2d", "conv1", {b.input()}, with_weight());
  const int y = b.leaf("conv2d", "conv2", {x}, with_weight());
  const int sum = b.functional("add", "", {x, y});
  b.output(b.leaf("linear", "fc", {sum}, with_weight()));
  EXPECT_EQ(grouped(b, plain_config()),
            (Lines{"conv1.input.0 | conv1.input.0 + conv1.weight | conv1",
                   "conv1 | conv1 + conv2.weight | conv2", "conv2 | conv2 |",
                   "/add_0 | /add_0 + fc.weight | /add_0 fc", "fc | fc |"}));
}

TEST(BuildGroups, ModelInputWithTwoReaders) {
  GraphBuilder b;
  const int x = b.input();
  b.output(b.leaf("conv2d", "left", {x}, with_weight()));
  b.output(b.leaf("conv2d", "right", {x}, with_weight()));
  EXPECT_EQ(grouped(b, plain_config()),
            (Lines{"left.input.0 | left.input.0 + left.weight + right.weight | "
                   "left right",
                   "left | left |", "right | right |"}));
}

TEST(BuildGroups, ModelInputsAndConstantsReadByAnAdd) {
  GraphBuilder b;
  b.output(b.functional("add", "", {b.input(), b.constant({4})}));
  EXPECT_EQ(
      grouped(b, plain_config()),
      (Lines{"/add_0.input.0 | /add_0.input.0 |",
             "/add_0.input.1 | /add_0.input.1 |", "/add_0 | /add_0 | /add_0"}));
}

// All params of an op come along, here a weight and a bias.
TEST(BuildGroups, SecondConvolutionOfASupergroupHasItsOwn) {
  GraphBuilder b;
  int t = b.leaf("conv2d", "depthwise", {b.input()}, with_weight());
  t = b.leaf("conv2d", "pointwise", {t}, with_weight());
  b.output(b.leaf("relu", "relu", {t}));
  config::QuantConfig config = plain_config();
  config.params["bias"].is_quantized = true;
  config.supergroups = {{"Conv", "Conv", "Relu"}};
  EXPECT_EQ(grouped(b, config),
            (Lines{"depthwise.input.0 | depthwise.input.0 + depthwise.weight + "
                   "depthwise.bias | depthwise",
                   "pointwise.weight | pointwise.weight + pointwise.bias | "
                   "pointwise",
                   "relu | relu | relu"}));
}

TEST(BuildGroups, FoldedBatchNormAndRelu) {
  GraphBuilder b;
  int t = b.leaf("conv2d", "conv", {b.input()}, with_weight());
  t = b.leaf("batch_norm", "bn", {t}, with_weight(0, {4}));
  t = b.leaf("relu6", "relu", {t});
  b.output(b.leaf("conv2d", "next", {t}, with_weight(1, {4, 1, 3, 3})));
  EXPECT_EQ(grouped(b, fusing_config()),
            (Lines{"conv.input.0 | conv.input.0 + conv.weight | conv",
                   "relu | relu + next.weight | relu next", "next | next |"}));
}

TEST(BuildGroups, EmbeddingReadsNoActivation) {
  GraphBuilder b;
  LeafOptions table;
  table.params = {{"weight", {10, 4}}};
  const int t = b.leaf("embedding", "embed", {}, table);
  b.output(b.leaf("linear", "fc", {t}, with_weight()));
  EXPECT_EQ(grouped(b, plain_config()),
            (Lines{"embed.weight | embed.weight | embed",
                   "embed | embed + fc.weight | fc", "fc | fc |"}));
}

GraphBuilder conv_called_twice() {
  GraphBuilder b;
  const int t = b.leaf("conv2d", "conv", {b.input()}, with_weight());
  b.output(b.leaf("conv2d", "conv", {t}, with_weight()));
  return b;
}

TEST(BuildGroups, WeightOfAReusedModuleJoinsItsFirstCall) {
  EXPECT_EQ(grouped(conv_called_twice(), plain_config()),
            (Lines{"conv.input.0 | conv.input.0 + conv.weight | conv conv:1",
                   "conv | conv |", "conv:1 | conv:1 |"}));
}

TEST(BuildGroups, KernelsTieTheActivationsOfAReusedModule) {
  config::QuantConfig config = plain_config();
  config.op_type["Conv"].supported_kernels = {
      {{Precision::integer(8), Precision::integer(8)}}};
  EXPECT_EQ(
      grouped(conv_called_twice(), config),
      (Lines{"conv.input.0 | conv.input.0 + conv + conv.weight | conv conv:1",
             "conv:1 | conv:1 |"}));
}

TEST(BuildGroups, NothingQuantizedNoGroups) {
  EXPECT_EQ(grouped(conv_called_twice(), config::QuantConfig{}), Lines{});
}

}  // namespace
}  // namespace aimetpp::groups
