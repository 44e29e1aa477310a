// SPDX-License-Identifier: BSD-3-Clause
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "config/placement_fixtures.h"
#include "core/error.h"
#include "groups/quantizer_group.h"
#include "support/graph_builder.h"

namespace aimetpp::groups {
namespace {

using config::QuantConfig;
using config::SupportedKernel;
using graph::OpGraph;
using testing::fusing_config;
using testing::GraphBuilder;
using testing::place;
using testing::plain_config;
using testing::with_weight;

Precision i(int bitwidth) { return Precision::integer(bitwidth); }

const std::vector<Candidate>& candidates() {
  static const std::vector<Candidate> all = {
      {i(16), i(16)},
      {i(16), i(8)},
      {i(8), i(8)},
      {i(8), i(4)},
      {Precision::fp16(), Precision::fp16()}};
  return all;
}

// Of the group named `group`, indices in candidates().
std::vector<int> supported(const GraphBuilder& builder,
                           const QuantConfig& config, const std::string& group,
                           bool use_all = false) {
  const OpGraph graph = builder.build();
  const config::Placement placement = place(graph, config);
  for (const QuantizerGroup& candidate : build_groups(graph, placement)) {
    if (candidate.name == group) {
      return supported_candidates(candidate, graph, placement, candidates(),
                                  use_all);
    }
  }
  ADD_FAILURE() << "no group " << group;
  return {};
}

// x -> conv -> relu -> fc -> softmax
GraphBuilder chain() {
  GraphBuilder b;
  int t = b.leaf("conv2d", "conv", {b.input()}, with_weight());
  t = b.leaf("relu", "relu", {t});
  t = b.leaf("linear", "fc", {t}, with_weight());
  b.output(b.leaf("softmax", "softmax", {t}));
  return b;
}

using Indices = std::vector<int>;

TEST(SupportedCandidates, NoKernelsAllowAnything) {
  EXPECT_EQ(supported(chain(), plain_config(), "relu"),
            (Indices{0, 1, 2, 3, 4}));
}

TEST(SupportedCandidates, PairsOfAWeightedReader) {
  QuantConfig config = fusing_config();
  config.op_type["Gemm"].supported_kernels = {{{i(8), i(4)}, {i(16), i(8)}}};
  EXPECT_EQ(supported(chain(), config, "relu"), (Indices{1, 3}));
  EXPECT_EQ(supported(chain(), config, "conv.input.0"),
            (Indices{0, 1, 2, 3, 4}));
}

TEST(SupportedCandidates, FloatsAreTheirOwn) {
  QuantConfig config = fusing_config();
  config.op_type["Gemm"].supported_kernels = {
      {{Precision::fp16(), Precision::fp16()}}};
  EXPECT_EQ(supported(chain(), config, "relu"), Indices{4});
}

TEST(SupportedCandidates, KernelWithoutParamTakesAnyWeight) {
  QuantConfig config = fusing_config();
  config.op_type["Gemm"].supported_kernels = {{{i(16), std::nullopt}}};
  EXPECT_EQ(supported(chain(), config, "relu"), (Indices{0, 1}));
}

TEST(SupportedCandidates, OpTypeReplacesDefaults) {
  QuantConfig config = fusing_config();
  config.defaults.supported_kernels = {{i(8), i(8)}, {i(16), i(16)}};
  config.op_type["Gemm"].supported_kernels = {{{i(8), i(4)}, {i(8), i(8)}}};
  EXPECT_EQ(supported(chain(), config, "conv.input.0"), (Indices{0, 2}));
  // The relu before it puts out what defaults allow: 8 or 16 bits.
  EXPECT_EQ(supported(chain(), config, "relu"), (Indices{2, 3}));
}

// A producer that only makes 16 bits is never narrowed, whoever reads it.
TEST(SupportedCandidates, WeightlessProducerRestrictsItsOutput) {
  QuantConfig config = fusing_config();
  config.op_type["Relu"].supported_kernels = {{{i(16), std::nullopt}}};
  EXPECT_EQ(supported(chain(), config, "relu"), (Indices{0, 1}));
  config.op_type["Relu"].supported_kernels = {{{i(16), i(16)}}};
  EXPECT_EQ(supported(chain(), config, "relu"), (Indices{0, 1}));
  config.op_type["Softmax"].supported_kernels = {{{i(16), std::nullopt}}};
  EXPECT_EQ(supported(chain(), config, "softmax"), (Indices{0, 1}));
}

// What softmax reads is fc's output: a weighted op does not restrict its
// output, a weightless one not its input.
TEST(SupportedCandidates, OutputOfAWeightedOpIsFree) {
  QuantConfig config = fusing_config();
  config.op_type["Gemm"].supported_kernels = {{{i(8), i(8)}}};
  config.op_type["Softmax"].supported_kernels = {{{i(16), std::nullopt}}};
  EXPECT_EQ(supported(chain(), config, "fc"), (Indices{0, 1, 2, 3, 4}));
}

TEST(SupportedCandidates, WeightsAloneRestrictTheParamOnly) {
  GraphBuilder b;
  int t = b.leaf("conv2d", "one", {b.input()}, with_weight());
  t = b.leaf("conv2d", "two", {t}, with_weight());
  b.output(b.leaf("relu", "relu", {t}));
  QuantConfig config = plain_config();
  config.supergroups = {{"Conv", "Conv", "Relu"}};
  config.op_type["Conv"].supported_kernels = {{{i(16), i(8)}}};
  EXPECT_EQ(supported(b, config, "two.weight"), (Indices{1, 2}));
  EXPECT_EQ(supported(b, config, "one.input.0"), Indices{1});
}

TEST(SupportedCandidates, EveryTiedProducerRestricts) {
  GraphBuilder b;
  const int relu = b.leaf("relu", "relu", {b.input()});
  const int tanh = b.leaf("tanh", "tanh", {b.input()});
  b.output(b.functional("cat", "", {relu, tanh}));
  QuantConfig config = plain_config();
  config.op_type["Relu"].supported_kernels = {
      {{i(8), std::nullopt}, {i(16), std::nullopt}}};
  config.op_type["Tanh"].supported_kernels = {{{i(16), std::nullopt}}};
  EXPECT_EQ(supported(b, config, "relu"), (Indices{0, 1}));
}

TEST(SupportedCandidates, AllWhereAsked) {
  QuantConfig config = fusing_config();
  config.op_type["Gemm"].supported_kernels = {{{i(4), i(4)}}};
  EXPECT_EQ(supported(chain(), config, "relu", true), (Indices{0, 1, 2, 3, 4}));
}

std::string message_of(const QuantConfig& config) {
  try {
    supported(chain(), config, "relu");
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::value);
    return error.what();
  }
  return "no error";
}

TEST(SupportedCandidates, NothingLeftNamesOpKernelsAndCandidates) {
  QuantConfig config = fusing_config();
  config.op_type["Gemm"].supported_kernels = {
      {{i(4), i(4)}, {i(2), std::nullopt}}};
  EXPECT_EQ(message_of(config),
            "quantizer group relu: no candidate is left: op fc (Gemm) supports "
            "int4/int4, int2/any (activation/param); the candidates are "
            "((16, int), (16, int)), ((16, int), (8, int)), ((8, int), (8, "
            "int)), ((8, int), (4, int)), ((16, float), (16, float))");
  config.op_type["Gemm"].supported_kernels = {{{i(8), i(8)}}};
  config.op_type["Relu"].supported_kernels = {{{i(16), std::nullopt}}};
  const std::string message = message_of(config);
  EXPECT_TRUE(message.ends_with(
      ", of which its other ops allow ((16, int), (16, int)), ((16, int), (8, "
      "int))"))
      << message;
}

TEST(SupportedCandidates, EmptyListIsAnError) {
  const OpGraph graph = chain().build();
  const config::Placement placement = place(graph, plain_config());
  const QuantizerGroup group = build_groups(graph, placement).front();
  EXPECT_THROW(supported_candidates(group, graph, placement, {}, false), Error);
  EXPECT_THROW(supported_candidates(group, graph, placement, {}, true), Error);
}

// conv has A8W8, A16W8 and A16W16; one half of what it takes is pinned.
TEST(SupportedCandidates, APinnedHalfCountsInsteadOfTheCandidates) {
  GraphBuilder b;
  b.output(b.leaf("conv2d", "conv", {b.input()}, with_weight()));
  QuantConfig config = plain_config();
  config.op_type["Conv"].supported_kernels = {
      {SupportedKernel{i(8), i(8)}, {i(16), i(8)}, {i(16), i(16)}}};
  const OpGraph graph = b.build();
  const config::Placement placement = place(graph, config);
  const std::vector<QuantizerGroup> groups = build_groups(graph, placement);
  const QuantizerGroup& group = groups.front();
  ASSERT_EQ(group.activation_quantizers.size(), 1u);
  ASSERT_EQ(group.param_quantizers.size(), 1u);
  const int activation = group.activation_quantizers.front();
  const int param = group.param_quantizers.front();
  const auto allowed = [&](const std::map<int, Precision>& pinned) {
    return supported_candidates(group, graph, placement, candidates(), false,
                                pinned);
  };
  EXPECT_EQ(allowed({}), (std::vector<int>{0, 1, 2}));
  // W8: whatever the candidate's weight, A16 and A8 have a kernel.
  EXPECT_EQ(allowed({{param, i(8)}}), (std::vector<int>{0, 1, 2, 3}));
  EXPECT_EQ(allowed({{param, i(16)}}), (std::vector<int>{0, 1}));
  EXPECT_EQ(allowed({{activation, i(16)}}), (std::vector<int>{0, 1, 2}));
  EXPECT_EQ(allowed({{activation, i(8)}}), (std::vector<int>{1, 2}));
  EXPECT_THROW(allowed({{param, i(4)}}), Error);
  // Both: nothing is asked of the candidates.
  EXPECT_EQ(allowed({{activation, i(4)}, {param, i(4)}}).size(),
            candidates().size());
}

}  // namespace
}  // namespace aimetpp::groups
