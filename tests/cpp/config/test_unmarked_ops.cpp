// SPDX-License-Identifier: BSD-3-Clause
// Ops without sites, which run where Python can't see them.
#include <gtest/gtest.h>

#include "config/placement_fixtures.h"
#include "support/graph_builder.h"

namespace aimetpp::config {
namespace {

using graph::OpGraph;
using testing::GraphBuilder;
using testing::Lines;
using testing::place;
using testing::placed;
using testing::plain_config;
using testing::rule_lines;
using testing::with_weight;

TEST(UnmarkedOps, AreQuantizedWhereTheirResultIsRead) {
  GraphBuilder b;
  int t = b.leaf("relu", "relu", {b.input()});
  t = b.bare("view", {b.bare("tanh", {t})});
  b.output(b.leaf("linear", "fc", {t}, with_weight()));
  b.output(b.leaf("sigmoid", "sigmoid", {t}));
  QuantConfig config = plain_config();
  EXPECT_EQ(placed(b, config),
            (Lines{"input int8: relu.input.0", "output int8: relu",
                   "input int8: fc.input.0 sigmoid.input.0",
                   "param int4 sym: fc.weight", "output int8: fc",
                   "output int8: sigmoid"}));
  const OpGraph graph = b.build();
  EXPECT_EQ(rule_lines(graph, place(graph, config), "fc.input.0").back(),
            "defaults | ops.is_output_quantized | on: made by tanh@1");
  config.op_type["Tanh"].is_output_quantized = false;
  EXPECT_EQ(placed(b, config),
            (Lines{"input int8: relu.input.0", "output int8: relu",
                   "param int4 sym: fc.weight", "output int8: fc",
                   "output int8: sigmoid"}));
}

// `y[:, :4] = x` is a merge of both that no call makes: its readers stand for
// its result, on one grid with what went in.
TEST(UnmarkedOps, MergesShareOneGridWithTheirReaders) {
  GraphBuilder b;
  const int left = b.leaf("relu", "left", {b.input()});
  const int right = b.leaf("relu", "right", {b.input()});
  const int t = b.bare("slice_scatter", {left, right});
  b.output(b.leaf("sigmoid", "sigmoid", {t}));
  EXPECT_EQ(placed(b, plain_config()),
            (Lines{"input int8: left.input.0",
                   "output int8: left right sigmoid.input.0",
                   "input int8: right.input.0", "output int8: sigmoid"}));
}

}  // namespace
}  // namespace aimetpp::config
