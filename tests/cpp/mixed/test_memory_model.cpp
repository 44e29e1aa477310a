// SPDX-License-Identifier: BSD-3-Clause
#include <gtest/gtest.h>

#include "config/placement_fixtures.h"
#include "mixed/memory_model.h"
#include "support/graph_builder.h"

namespace aimetpp::mixed {
namespace {

using aimetpp::testing::GraphBuilder;
using aimetpp::testing::LeafOptions;
using aimetpp::testing::with_weight;

// Batch of 2. conv1 reads 4 x 8 x 8, relu1 puts out 3 x 6 x 6 (conv1's result
// stays inside the supergroup), which conv2 and the addition read; conv2 puts
// out 3 x 6 x 6, which the addition reads; its own result has 108 elements.
//   weights      conv1 3 x 4 x 3 x 3 = 108 and 3 biases, conv2 3 x 3 = 9 and 3
//   activations  256 of the input; 108 each: relu1 out, conv2 in, add in,
//                conv2 out, add in, add out
TEST(MemoryModel, CountsByHand) {
  GraphBuilder b;
  LeafOptions conv1 = with_weight(1, {3, 4, 3, 3});
  conv1.shape = {2, 3, 6, 6};
  LeafOptions conv2 = with_weight(1, {3, 3, 1, 1});
  conv2.shape = conv1.shape;
  LeafOptions plain;
  plain.shape = conv1.shape;
  const int x = b.leaf("conv2d", "conv1", {b.input({2, 4, 8, 8})}, conv1);
  const int r = b.leaf("relu", "relu1", {x}, plain);
  const int y = b.leaf("conv2d", "conv2", {r}, conv2);
  b.output(b.functional("add", "", {r, y}, plain));
  graph::OpGraph graph = b.build();
  graph.batch = 2;
  const auto placement =
      aimetpp::testing::place(graph, aimetpp::testing::fusing_config());
  const MemoryModel model = build_memory_model(graph, placement);

  std::vector<Precision> precisions(placement.quantizers.size(),
                                    Precision::integer(8));
  // Biases are not quantized: 4 bytes each.
  EXPECT_DOUBLE_EQ(model.weight_bytes(precisions), 108 + 9 + 6 * 4);
  EXPECT_DOUBLE_EQ(model.activation_bytes(precisions), 256 + 6 * 108);
  precisions.assign(precisions.size(), Precision::integer(4));
  EXPECT_DOUBLE_EQ(model.weight_bytes(precisions), 58.5 + 6 * 4);
  precisions.assign(precisions.size(), Precision::fp16());
  EXPECT_DOUBLE_EQ(model.activation_bytes(precisions), 2 * (256 + 6 * 108));
}

// A module that is called twice has its weight once.
TEST(MemoryModel, CountsASharedParameterOnce) {
  GraphBuilder b;
  const int x = b.leaf("conv2d", "conv1", {b.input()}, with_weight());
  b.output(b.leaf("conv2d", "conv1", {x}, with_weight()));
  graph::OpGraph graph = b.build();
  int number = 0;
  for (graph::Op& op : graph.ops) {
    number = 0;
    for (graph::Param& param : op.params) param.parameter = number++;
  }
  const auto placement =
      aimetpp::testing::place(graph, aimetpp::testing::plain_config());
  const MemoryModel model = build_memory_model(graph, placement);
  EXPECT_EQ(model.weights.size(), 2U);
}

}  // namespace
}  // namespace aimetpp::mixed
