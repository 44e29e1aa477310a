// SPDX-License-Identifier: BSD-3-Clause
#include <gtest/gtest.h>

#include "graph/op_graph.h"
#include "support/graph_builder.h"

namespace aimetpp::graph {
namespace {

using ::aimetpp::testing::GraphBuilder;
using ::aimetpp::testing::with_weight;

// relu(conv(x)) flattened, added to a constant; relu is called again at the
// end.
struct Example {
  GraphBuilder builder;
  int x = builder.input();
  int conv = builder.leaf("conv2d", "block.conv", {x}, with_weight(27));
  int relu = builder.leaf("relu", "relu", {conv});
  int flat = builder.bare("flatten", {relu});
  int shift = builder.constant();
  int sum = builder.functional("add", "block", {flat, shift});
  int last = builder.leaf("relu", "relu", {sum});

  OpGraph graph() {
    builder.output(last);
    return builder.build();
  }
};

TEST(SiteTest, ParameterNameIsWithoutPathAndRows) {
  const auto name = [](const std::string& param) {
    Site site;
    site.param = param;
    return site.param_name();
  };
  EXPECT_EQ(name("weight"), "weight");
  EXPECT_EQ(name("encoder.attention.in_proj_weight"), "in_proj_weight");
  EXPECT_EQ(name("attention.in_proj_weight[8:24]"), "in_proj_weight");
}

TEST(CallName, SaysModuleAndOrdinal) {
  EXPECT_EQ((Call{"conv1", 0, false, "Conv2d", ""}).name(), "conv1");
  EXPECT_EQ((Call{"relu", 1, false, "ReLU", ""}).name(), "relu:1");
  EXPECT_EQ((Call{"layer1.0", 0, true, "add", ""}).name(), "layer1.0/add_0");
  EXPECT_EQ((Call{"", 2, true, "cat", ""}).name(), "/cat_2");
  EXPECT_EQ((Call{"", 0, false, "Conv2d", ""}).name(), "Conv2d");
}

TEST(OpGraph, TextHasOneLinePerOp) {
  EXPECT_EQ(Example().graph().to_text(),
            "in: x0\n"
            "block.conv: conv2d(x0#0) -> t1#3 {weight#1, bias#2} macs=27\n"
            "relu: relu(t1#4) -> t2#5\n"
            "flatten@2: flatten(t2) -> t3 grid_preserving\n"
            "block/add_0: add(t3#6, c4#7) -> t5#8\n"
            "relu:1: relu(t5#9) -> t6#10\n"
            "out: t6\n");
}

TEST(OpGraph, SiteNames) {
  OpGraph graph = Example().graph();
  EXPECT_EQ(graph.site_name(0), "block.conv.input.0");
  EXPECT_EQ(graph.site_name(1), "block.conv.weight");
  EXPECT_EQ(graph.site_name(3), "block.conv");
  EXPECT_EQ(graph.site_name(7), "block/add_0.input.1");
  EXPECT_EQ(graph.site_name(8), "block/add_0");
  EXPECT_EQ(graph.site_name(10), "relu:1");
  graph.sites[10].slot = 1;
  EXPECT_EQ(graph.site_name(10), "relu:1.output.1");
}

TEST(OpGraph, OpAndTensorOfASite) {
  Example example;
  const OpGraph graph = example.graph();
  EXPECT_EQ(graph.op_of_site(1), 0);
  EXPECT_EQ(graph.op_of_site(9), 4);
  const std::vector<int> ops = graph.ops_of_calls();
  for (int site = 0; site < static_cast<int>(graph.sites.size()); ++site) {
    EXPECT_EQ(ops.at(graph.sites[site].call), graph.op_of_site(site));
  }
  EXPECT_EQ(graph.tensor_of_site(0), example.x);
  EXPECT_EQ(graph.tensor_of_site(7), example.shift);
  EXPECT_EQ(graph.tensor_of_site(8), example.sum);
  EXPECT_EQ(graph.tensor_of_site(1), kNone) << "a parameter is no tensor";
}

TEST(OpGraph, SiteOfACallThatNeverRan) {
  OpGraph graph = Example().graph();
  graph.calls.push_back({"unused", 0, false, "ReLU", ""});
  const int site = static_cast<int>(graph.sites.size());
  graph.sites.push_back({site, SiteKind::output,
                         static_cast<int>(graph.calls.size()) - 1, 0, ""});
  EXPECT_EQ(graph.op_of_site(site), kNone);
  EXPECT_EQ(graph.tensor_of_site(site), kNone);
}

TEST(OpGraph, ValueSourceStopsWhereValuesAreMade) {
  Example example;
  const OpGraph graph = example.graph();
  EXPECT_EQ(graph.value_source(example.flat), example.relu);
  EXPECT_EQ(graph.value_source(example.relu), example.relu);
  EXPECT_EQ(graph.value_source(example.x), example.x);
  EXPECT_EQ(graph.value_source(example.shift), example.shift);
}

TEST(OpGraph, ValueSourceGoesThroughSeveralOps) {
  GraphBuilder builder;
  const int x = builder.input();
  const int padded = builder.bare("pad", {builder.bare("t", {x})});
  const int pooled = builder.leaf("max_pool2d", "pool", {padded});
  builder.output(pooled);
  EXPECT_EQ(builder.build().value_source(pooled), x);
}

}  // namespace
}  // namespace aimetpp::graph
