// SPDX-License-Identifier: BSD-3-Clause
// Masks have no quantizers; quantizers of masked scores know what is masked.
#include <gtest/gtest.h>

#include "config/placement.h"
#include "graph/masks.h"
#include "support/graph_builder.h"

namespace aimetpp::config {
namespace {

using graph::kNone;
using testing::GraphBuilder;
using testing::with_weight;

TEST(MaskPlacementTest, MasksAreOffAndMaskedSumsKnowIt) {
  GraphBuilder b;
  const int x = b.input();
  const int keep = b.input();
  const int mask = b.functional("mul", "", {keep});
  const int scores = b.leaf("linear", "scores", {x}, with_weight(1, {4, 4}));
  const int masked = b.functional("add", "", {scores, mask});
  const int bias =
      b.leaf("embedding", "bias", {b.constant()}, with_weight(1, {4, 4}));
  const int sum = b.functional("add", "", {masked, bias});
  b.output(b.functional("softmax", "", {sum}));
  graph::OpGraph graph = b.build();
  const auto& add = graph.ops[graph.tensors[masked].producer];
  graph.sites[add.input_sites[1]].mask = {graph::MaskValues::mask, -1000};
  graph::find_masks(graph);

  QuantConfig config;
  config.defaults.ops_is_output_quantized = true;
  config.model_input_is_input_quantized = true;
  const Placement placement = place_quantizers(
      graph, config, {Precision::integer(8), Precision::integer(8)});
  const auto output_of = [&](int tensor) {
    return graph.ops[graph.tensors[tensor].producer].output_sites[0];
  };
  const auto quantizer_of = [&](int site) {
    return placement.quantizer_of_site[site];
  };
  const auto& scale = graph.ops[graph.tensors[mask].producer];
  EXPECT_EQ(quantizer_of(scale.input_sites[0]), kNone);
  EXPECT_EQ(quantizer_of(output_of(mask)), kNone);
  EXPECT_EQ(quantizer_of(add.input_sites[1]), kNone);
  EXPECT_EQ(quantizer_of(output_of(masked)), kNone);
  ASSERT_NE(quantizer_of(output_of(sum)), kNone);
  const auto& quantizers = placement.quantizers;
  EXPECT_EQ(quantizers[quantizer_of(output_of(sum))].masked_below, -1000);
  EXPECT_EQ(quantizers[quantizer_of(output_of(scores))].masked_below,
            std::nullopt);
  EXPECT_EQ(placement.rules[output_of(mask)].front(),
            (RuleEffect{"graph", "mask",
                        "off: a mask, which is 0 or so low that softmax makes "
                        "it 0"}));
}

}  // namespace
}  // namespace aimetpp::config
