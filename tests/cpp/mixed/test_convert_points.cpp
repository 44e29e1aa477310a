// SPDX-License-Identifier: BSD-3-Clause
// Where convert ops stand, on graphs worked by hand.
#include <gtest/gtest.h>

#include <algorithm>

#include "config/placement_fixtures.h"
#include "mixed/convert_points.h"
#include "support/graph_builder.h"

namespace aimetpp::mixed {
namespace {

using aimetpp::testing::GraphBuilder;
using aimetpp::testing::LeafOptions;
using aimetpp::testing::with_weight;
using graph::OpGraph;

LeafOptions conv(std::vector<std::int64_t> shape) {
  LeafOptions options = with_weight();
  options.shape = std::move(shape);
  return options;
}

LeafOptions shaped(std::vector<std::int64_t> shape) {
  LeafOptions options;
  options.shape = std::move(shape);
  return options;
}

config::Placement placement_of(const OpGraph& graph) {
  return aimetpp::testing::place(graph, aimetpp::testing::fusing_config());
}

// "conv1: conv1.input.0 -> relu1", one for each point, by names of sites.
std::vector<std::string> texts(const OpGraph& graph,
                               const config::Placement& placement) {
  const auto name = [&](int quantizer) {
    const auto index = static_cast<std::size_t>(quantizer);
    return graph.site_name(placement.quantizers[index].sites.front());
  };
  std::vector<std::string> found;
  for (const ConvertPoint& point : find_convert_points(graph, placement)) {
    std::string text = point.tensor + " [" + std::to_string(point.elements) +
                       "]: " + name(point.from) + " ->";
    for (const int reader : point.to) text += " " + name(reader);
    found.push_back(text);
  }
  std::sort(found.begin(), found.end());
  return found;
}

// A convolution computes in the precision of what it reads; its result, inside
// the supergroup, is converted for the ReLU's output.
TEST(ConvertPoints, ASupergroupConvertsTheResultOfItsConvolution) {
  GraphBuilder b;
  const int y = b.leaf("conv2d", "conv1", {b.input()}, conv({1, 4, 6, 6}));
  const int r = b.leaf("relu", "relu1", {y}, shaped({1, 4, 6, 6}));
  const int p = b.leaf("max_pool2d", "pool", {r}, shaped({1, 4, 3, 3}));
  b.output(b.leaf("conv2d", "conv2", {p}, conv({1, 2, 1, 1})));
  const OpGraph graph = b.build();
  EXPECT_EQ(texts(graph, placement_of(graph)),
            (std::vector<std::string>{"conv1 [144]: conv1.input.0 -> relu1",
                                      "conv2 [2]: relu1 -> conv2"}));
}

// An addition computes in the precision of its result, and converts what it
// reads. Both readers of conv1 in that precision share a convert op.
TEST(ConvertPoints, AnAdditionConvertsWhatItReads) {
  GraphBuilder b;
  const int x = b.leaf("conv2d", "conv1", {b.input()}, conv({1, 4, 6, 6}));
  const int y = b.leaf("conv2d", "conv2", {x}, conv({1, 4, 6, 6}));
  const int s = b.functional("add", "", {x, y}, shaped({1, 4, 6, 6}));
  const int m = b.functional("mul", "", {x, s}, shaped({1, 4, 6, 6}));
  b.output(m);
  const OpGraph graph = b.build();
  EXPECT_EQ(texts(graph, placement_of(graph)),
            (std::vector<std::string>{"/add_0 [144]: /add_0 -> /mul_0",
                                      "conv1 [144]: conv1 -> /add_0 /mul_0",
                                      "conv1 [144]: conv1.input.0 -> conv1",
                                      "conv2 [144]: conv1 -> conv2",
                                      "conv2 [144]: conv2 -> /add_0"}));
}

// Tied by the concatenation: nothing to convert.
TEST(ConvertPoints, AConcatenationConvertsNothing) {
  GraphBuilder b;
  const int x = b.input();
  const int y = b.leaf("conv2d", "conv1", {x}, conv({1, 4, 6, 6}));
  const int z = b.leaf("conv2d", "conv2", {x}, conv({1, 4, 6, 6}));
  b.output(b.functional("cat", "", {y, z}, shaped({1, 8, 6, 6})));
  const OpGraph graph = b.build();
  EXPECT_EQ(texts(graph, placement_of(graph)),
            (std::vector<std::string>{"conv1 [144]: conv1.input.0 -> conv1",
                                      "conv2 [144]: conv1.input.0 -> conv1"}));
}

TEST(ConvertPoints, CountsElementsOfOneSample) {
  GraphBuilder b;
  b.output(b.leaf("conv2d", "conv1", {b.input()}, conv({3, 4, 6, 6})));
  OpGraph graph = b.build();
  graph.batch = 3;
  EXPECT_EQ(texts(graph, placement_of(graph)),
            (std::vector<std::string>{"conv1 [144]: conv1.input.0 -> conv1"}));
}

}  // namespace
}  // namespace aimetpp::mixed
