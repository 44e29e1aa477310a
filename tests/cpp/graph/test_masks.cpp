// SPDX-License-Identifier: BSD-3-Clause
#include "graph/masks.h"

#include <gtest/gtest.h>

#include <limits>
#include <vector>

#include "support/graph_builder.h"

namespace aimetpp::graph {
namespace {

using testing::GraphBuilder;
using testing::with_weight;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kLowest = std::numeric_limits<float>::lowest();

struct MaskCase {
  std::vector<float> values;
  MaskValues expected;
  double masked_below = 0;
  bool negated = false;
};

class ClassifyMaskTest : public ::testing::TestWithParam<MaskCase> {};

TEST_P(ClassifyMaskTest, TellsMasksFromValues) {
  const MaskCase& c = GetParam();
  const MaskFacts facts = classify_mask(
      c.values.data(), static_cast<std::int64_t>(c.values.size()), c.negated);
  EXPECT_EQ(facts.values, c.expected);
  EXPECT_EQ(facts.masked_below, c.masked_below);
}

INSTANTIATE_TEST_SUITE_P(
    Values, ClassifyMaskTest,
    ::testing::Values(MaskCase{{}, MaskValues::none},
                      MaskCase{{0, 0}, MaskValues::zeros},
                      MaskCase{{0, -kInfinity}, MaskValues::mask, -1000},
                      MaskCase{{0, kLowest}, MaskValues::mask, -1000},
                      MaskCase{{-1e9F, -1e4F}, MaskValues::mask, -1000},
                      MaskCase{{0, -100, kLowest}, MaskValues::mask, -50},
                      MaskCase{{0, 1e4F}, MaskValues::mask, -1000, true},
                      MaskCase{{0, 1e4F}, MaskValues::none},
                      MaskCase{{0, -49}, MaskValues::none},
                      MaskCase{{0, -0.5F, -100}, MaskValues::none},
                      MaskCase{
                          {0.5F, -100, -kInfinity}, MaskValues::some, -1000}));

// Scores (a product) and what is added to them on the way to a softmax.
class FindMasksTest : public ::testing::Test {
 protected:
  int scores() {
    const int x = b_.input();
    return b_.functional("matmul", "",
                         {b_.leaf("linear", "q", {x}, weight_),
                          b_.leaf("linear", "k", {x}, weight_)});
  }

  // The built graph with facts at the input `slot` of the op named `name`.
  OpGraph found(const std::string& name, int slot, MaskFacts facts) {
    OpGraph graph = b_.build();
    graph.sites[op(graph, name).input_sites[slot]].mask = facts;
    find_masks(graph);
    return graph;
  }

  static const Op& op(const OpGraph& graph, const std::string& name) {
    for (const Op& candidate : graph.ops) {
      if (candidate.name == name) return candidate;
    }
    throw std::out_of_range(name);
  }

  const testing::LeafOptions weight_ = with_weight(1, {4, 4});
  const MaskFacts mask_{MaskValues::mask, -1000};
  GraphBuilder b_;
};

TEST_F(FindMasksTest, AddingAMaskKeepsTheGridOfTheScores) {
  const int s = scores();
  const int mask = b_.constant();
  const int sum = b_.functional("add", "", {mask, s});  // the mask comes first
  b_.output(b_.functional("softmax", "", {b_.bare("view", {sum})}));
  const OpGraph graph = found("/add_0", 0, mask_);
  const Op& add = op(graph, "/add_0");
  EXPECT_EQ(add.kind, "mask_add");
  EXPECT_EQ(add.role, OpRole::grid_preserving);
  EXPECT_EQ(add.onnx_type, "");
  EXPECT_EQ(add.inputs, (std::vector{s, mask}));
  EXPECT_EQ(graph.sites[add.input_sites[0]].slot, 1);
  EXPECT_EQ(add.mask_slot, 1);
  EXPECT_EQ(graph.tensors[s].uses.front().slot, 0);
  EXPECT_EQ(graph.tensors[mask].uses.front().slot, 1);
  EXPECT_TRUE(graph.tensors[mask].is_mask);
  EXPECT_FALSE(graph.tensors[s].is_mask);
  EXPECT_EQ(graph.tensors[s].masked_below, std::nullopt);
  EXPECT_EQ(graph.tensors[sum].masked_below, -1000);
  EXPECT_EQ(graph.value_source(sum), s);
}

TEST_F(FindMasksTest, NoMaskWithoutASoftmax) {
  b_.output(b_.functional("add", "", {scores(), b_.constant()}));
  const OpGraph graph = found("/add_0", 1, mask_);
  EXPECT_EQ(op(graph, "/add_0").kind, "add");
  EXPECT_EQ(op(graph, "/add_0").role, OpRole::compute);
}

TEST_F(FindMasksTest, ZerosAreAMaskUnlessLearned) {
  const int learned = b_.leaf("embedding", "bias", {b_.constant()}, weight_);
  const int s = b_.functional("add", "", {scores(), learned});
  b_.output(b_.functional("softmax", "",
                          {b_.functional("add", "", {s, b_.constant()})}));
  const MaskFacts zeros{MaskValues::zeros, 0};
  EXPECT_EQ(op(found("/add_0", 1, zeros), "/add_0").mask_slot, kNone);
  const OpGraph graph = found("/add_1", 1, zeros);
  EXPECT_EQ(op(graph, "/add_1").mask_slot, 1);
  EXPECT_EQ(graph.tensors[op(graph, "/add_1").outputs[0]].masked_below, -1000);
}

TEST_F(FindMasksTest, WhatComputesTheMaskIsPartOfIt) {
  const int keep = b_.input();
  const int inverted = b_.functional("sub", "", {keep});
  const int mask = b_.functional("mul", "", {inverted});
  int s = scores();
  for (int layer = 0; layer < 2; ++layer) {
    s = b_.functional("softmax", "",
                      {b_.functional("add", "", {s, b_.bare("view", {mask})})});
  }
  b_.output(s);
  OpGraph graph = b_.build();
  for (const char* name : {"/add_0", "/add_1"}) {
    graph.sites[op(graph, name).input_sites[1]].mask = mask_;
  }
  OpGraph other = graph;
  find_masks(graph);
  for (const int tensor : {keep, inverted, mask}) {
    EXPECT_TRUE(graph.tensors[tensor].is_mask) << tensor;
  }
  other.tensors[inverted].is_model_output = true;  // and something else, too
  find_masks(other);
  EXPECT_TRUE(other.tensors[mask].is_mask);
  EXPECT_FALSE(other.tensors[inverted].is_mask);
  EXPECT_FALSE(other.tensors[keep].is_mask);
}

TEST_F(FindMasksTest, ABiasThatIsMaskedLeavesItsMaskOutOfTheSum) {
  const int bias = b_.leaf("embedding", "bias", {b_.constant()}, weight_);
  const int masked = b_.functional("add", "", {bias, b_.constant()});
  const int sum = b_.functional("add", "", {scores(), masked});
  const int scaled = b_.functional("mul", "", {sum});
  b_.output(b_.functional("softmax", "", {scaled}));
  const OpGraph graph = found("/add_0", 1, {MaskValues::mask, -50});
  EXPECT_EQ(op(graph, "/add_0").role, OpRole::grid_preserving);
  EXPECT_EQ(op(graph, "/add_1").role, OpRole::compute);
  for (const int tensor : {masked, sum, scaled}) {
    EXPECT_EQ(graph.tensors[tensor].masked_below, -50) << tensor;
  }
  EXPECT_EQ(graph.tensors[op(graph, "/softmax_0").outputs[0]].masked_below,
            std::nullopt);
}

TEST_F(FindMasksTest, ValuesWithMasksAmongThemAreQuantizedWithoutThem) {
  const int slopes = b_.constant();
  const int sum = b_.functional("add", "", {scores(), slopes});
  b_.output(b_.functional("softmax", "", {sum}));
  const OpGraph graph = found("/add_0", 1, {MaskValues::some, -1000});
  EXPECT_EQ(op(graph, "/add_0").role, OpRole::compute);
  EXPECT_FALSE(graph.tensors[slopes].is_mask);
  EXPECT_EQ(graph.tensors[slopes].masked_below, -1000);
  EXPECT_EQ(graph.tensors[sum].masked_below, -1000);
}

// What a module does with a mask inside is not seen: no softmax need follow.
TEST_F(FindMasksTest, AModuleAppliesMasksInside) {
  const int mask = b_.constant();
  const int y = b_.leaf("Attention", "attention", {b_.input(), mask}, weight_);
  b_.output(y);
  const OpGraph graph = found("attention", 1, mask_);
  EXPECT_EQ(op(graph, "attention").mask_slot, 1);
  EXPECT_EQ(op(graph, "attention").role, OpRole::compute);
  EXPECT_TRUE(graph.tensors[mask].is_mask);
  // -100 among others may be a value, in a module that is no attention.
  EXPECT_EQ(
      op(found("attention", 1, {MaskValues::mask, -50}), "attention").mask_slot,
      kNone);
}

TEST_F(FindMasksTest, ZerosForAModuleMayBecomeAMask) {
  const int mask = b_.constant();
  b_.output(b_.leaf("Attention", "attention", {b_.input(), mask}, weight_));
  const OpGraph graph = found("attention", 1, {MaskValues::zeros, 0});
  EXPECT_EQ(op(graph, "attention").mask_slot, kNone);
  EXPECT_EQ(graph.tensors[mask].masked_below, -5000);
}

TEST_F(FindMasksTest, AFillBeforeAScaleIsMasked) {
  const int filled = b_.bare("masked_fill", {scores()});
  const int scaled = b_.functional("div", "", {filled});
  b_.output(b_.functional("softmax", "", {scaled}));
  OpGraph graph = b_.build();
  find_masks(graph);
  EXPECT_EQ(graph.tensors[scaled].masked_below, -1000);
}

}  // namespace
}  // namespace aimetpp::graph
