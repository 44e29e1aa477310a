// SPDX-License-Identifier: BSD-3-Clause
// Every rule that touches a site is logged, in the order of application.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "config/placement.h"
#include "config/placement_fixtures.h"
#include "support/graph_builder.h"

namespace aimetpp::config {
namespace {

using graph::OpGraph;
using testing::GraphBuilder;
using testing::place;
using testing::plain_config;
using testing::rule_lines;
using testing::with_weight;
using Lines = std::vector<std::string>;

TEST(RuleLog, EverySectionInOrder) {
  GraphBuilder b;
  int t = b.leaf("conv2d", "conv", {b.input()}, with_weight());
  t = b.leaf("batch_norm", "bn", {t}, with_weight(0, {4}));
  t = b.leaf("relu", "relu", {t});
  t = b.leaf("max_pool2d", "pool", {t});
  b.output(b.functional("cat", "", {t, b.constant({4})}));
  const OpGraph graph = b.build();
  QuantConfig config = plain_config();
  config.defaults.ops_is_symmetric = false;
  config.params["weight"] = {std::nullopt, false};
  config.op_type["Conv"].per_channel_quantization = true;
  config.op_type["Conv"].params["weight"] = {std::nullopt, true};
  config.op_type["Relu"].encoding_constraints = {0.0, std::nullopt};
  config.op_type["Relu"].is_symmetric = true;
  config.op_type["MaxPool"].is_input_quantized = true;
  config.supergroups = {{"Conv", "Relu"}};
  config.model_output_is_output_quantized = true;
  const Placement placement = place(graph, config);
  const auto rules = [&](const char* site) {
    return rule_lines(graph, placement, site);
  };
  const std::string input_off =
      "defaults | inputs | off: quantized where it is made";
  const std::string asymmetric = "defaults | ops.is_symmetric | asymmetric";
  EXPECT_EQ(rules("conv.input.0"),
            (Lines{input_off, asymmetric,
                   "model_input | is_input_quantized (model input 0) | on"}));
  EXPECT_EQ(rules("conv.weight"),
            (Lines{"defaults | params.is_quantized | on",
                   "defaults | params.is_symmetric | symmetric",
                   "params | weight.is_symmetric | asymmetric",
                   "op_type | Conv.params.weight.is_symmetric | symmetric",
                   "op_type | Conv.per_channel_quantization | per-channel "
                   "along axis 0"}));
  EXPECT_EQ(rules("conv.bias"),
            (Lines{"defaults | params.is_quantized | on",
                   "defaults | params.is_symmetric | symmetric",
                   "params | bias.is_quantized | off"}));
  EXPECT_EQ(rules("conv"),
            (Lines{"defaults | ops.is_output_quantized | on", asymmetric,
                   "supergroups | bn folds into conv | off: the result is "
                   "at bn",
                   "supergroups | supergroups[0] [Conv, Relu] | off: the "
                   "result of the chain is at relu"}));
  EXPECT_EQ(rules("bn.weight").back(),
            "supergroups | bn folds into conv | off: part of conv");
  EXPECT_EQ(rules("bn"),
            (Lines{"defaults | ops.is_output_quantized | on", asymmetric,
                   "supergroups | bn folds into conv | on: as conv was",
                   "supergroups | supergroups[0] [Conv, Relu] | off: the "
                   "result of the chain is at relu"}));
  EXPECT_EQ(rules("relu.input.0"),
            (Lines{input_off, asymmetric,
                   "op_type | Relu.is_symmetric | "
                   "symmetric",
                   "supergroups | supergroups[0] [Conv, Relu] | off: the "
                   "result of the chain is at relu"}));
  EXPECT_EQ(rules("relu"),
            (Lines{"defaults | ops.is_output_quantized | on", asymmetric,
                   "op_type | Relu.is_symmetric | symmetric",
                   "op_type | Relu.encoding_constraints | constrained to [0, "
                   "free]",
                   "op_type | MaxPool.is_input_quantized | on: read by pool",
                   "supergroups | supergroups[0] [Conv, Relu] | as it was: "
                   "result of the chain",
                   "graph | tie of /cat_0 | shares the quantizer of /cat_0"}));
  EXPECT_EQ(rules("pool"),
            (Lines{"defaults | ops.is_output_quantized | off: max_pool2d keeps "
                   "the grid of its input",
                   asymmetric}));
  EXPECT_EQ(rules("/cat_0.input.1"),
            (Lines{input_off, asymmetric,
                   "model_input | is_input_quantized (constant) | on",
                   "graph | tie of /cat_0 | shares the quantizer of /cat_0"}));
}

TEST(RuleLog, ModelOutputAndSharedReaders) {
  GraphBuilder b;
  const int x = b.input();
  b.output(b.leaf("relu", "one", {x}));
  b.output(b.leaf("relu", "two", {x}));
  const OpGraph graph = b.build();
  QuantConfig config = plain_config();
  config.defaults.ops_is_output_quantized = false;
  config.model_output_is_output_quantized = true;
  const Placement placement = place(graph, config);
  EXPECT_EQ(rule_lines(graph, placement, "one"),
            (Lines{"defaults | ops.is_output_quantized | off",
                   "model_output | is_output_quantized | on"}));
  EXPECT_EQ(rule_lines(graph, placement, "two.input.0").back(),
            "graph | same values | shares the quantizer of one.input.0");
}

TEST(RuleLog, SitesThatCannotBeQuantizedSayWhyAndIgnoreRules) {
  GraphBuilder b;
  b.output(b.leaf("relu", "relu", {b.input()}));
  OpGraph graph = b.build();
  graph.tensors[graph.ops[0].outputs[0]].is_floating = false;
  graph::Call unused;
  unused.module = "unused";
  unused.type = "ReLU";
  graph.calls.push_back(unused);
  graph.sites.push_back({static_cast<int>(graph.sites.size()),
                         graph::SiteKind::output, 1, 0, ""});
  QuantConfig config = plain_config();
  config.op_type["Relu"].is_output_quantized = true;
  const Placement placement = place(graph, config);
  EXPECT_EQ(rule_lines(graph, placement, "relu"),
            Lines{"graph | dtype | off: not a floating-point tensor"});
  EXPECT_EQ(rule_lines(graph, placement, "unused"),
            Lines{"graph | reachability | off: the traced forward did not "
                  "come here"});
  EXPECT_EQ(placement.quantizers.size(), 1U);
}

}  // namespace
}  // namespace aimetpp::config
