// SPDX-License-Identifier: BSD-3-Clause
// What must hold on any graph, checked on random ones.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "config/placement.h"
#include "config/placement_fixtures.h"
#include "graph/op_traits.h"
#include "support/graph_builder.h"

namespace aimetpp::config {
namespace {

using graph::kNone;
using graph::Op;
using graph::OpGraph;
using graph::OpRole;
using testing::fusing_config;
using testing::GraphBuilder;
using testing::place;
using testing::plain_config;
using testing::with_weight;

// Up to 25 ops over two model inputs and a constant; the last tensors made are
// the outputs.
OpGraph random_graph(unsigned seed) {
  std::mt19937 random(seed);
  GraphBuilder b;
  std::vector<int> tensors = {b.input(), b.input(), b.constant({4})};
  const auto pick = [&](std::size_t bound) {
    return static_cast<int>(random() % bound);
  };
  const int num_ops = 5 + pick(20);
  for (int i = 0; i < num_ops; ++i) {
    // Recent tensors are read more often, so that chains form.
    const auto operand = [&] {
      const std::size_t recent = std::min<std::size_t>(tensors.size(), 4);
      return pick(3) > 0 ? tensors[tensors.size() - 1 - pick(recent)]
                         : tensors[pick(tensors.size())];
    };
    const std::string name = "m" + std::to_string(i);
    switch (pick(10)) {
      case 0:
      case 1:
        tensors.push_back(b.leaf("conv2d", name, {operand()}, with_weight()));
        break;
      case 2:
        tensors.push_back(b.leaf("linear", name, {operand()}, with_weight()));
        break;
      case 3:
        tensors.push_back(
            b.leaf("batch_norm", name, {operand()}, with_weight(0, {4})));
        break;
      case 4:
        tensors.push_back(b.leaf("relu", "relu", {operand()}));
        break;
      case 5:
        tensors.push_back(b.functional("add", "", {operand(), operand()}));
        break;
      case 6:
        tensors.push_back(b.functional("cat", "", {operand(), operand()}));
        break;
      case 7:
        tensors.push_back(b.leaf("max_pool2d", name, {operand()}));
        break;
      case 8:
        tensors.push_back(b.bare("view", {operand()}));
        break;
      default:
        tensors.push_back(b.functional("softmax", "", {operand()}));
    }
  }
  b.output(tensors.back());
  b.output(tensors[tensors.size() - 2]);
  return b.build();
}

class RandomGraphs : public ::testing::TestWithParam<unsigned> {
 protected:
  const OpGraph graph_ = random_graph(GetParam());
};

// Where every op's output and every model input is quantized, no op reads a
// value in full precision.
TEST_P(RandomGraphs, EveryInputHasAQuantizer) {
  const Placement placement = place(graph_, plain_config());
  for (int op = 0; op < static_cast<int>(graph_.ops.size()); ++op) {
    if (graph_.ops[op].role != OpRole::compute) {
      continue;
    }
    for (int slot = 0; slot < static_cast<int>(graph_.ops[op].inputs.size());
         ++slot) {
      // A batch norm's folded neighbour is the one value that is not.
      const int source = graph_.value_source(graph_.ops[op].inputs[slot]);
      const int producer = graph_.tensors[source].producer;
      const bool folded =
          producer != kNone && graph_.ops[op].kind == "batch_norm" &&
          placement.quantizer_of_site[graph_.ops[op].params[0].site] == kNone;
      EXPECT_EQ(quantizer_of_input(graph_, placement, op, slot) == kNone,
                folded)
          << graph_.ops[op].name << " input " << slot << "\n"
          << graph_.to_text();
    }
  }
}

// Two different quantizers never stand one behind the other on the same values.
TEST_P(RandomGraphs, NoValueIsQuantizedTwice) {
  for (const QuantConfig& config : {plain_config(), fusing_config()}) {
    Placement placement = place(graph_, config);
    for (int op = 0; op < static_cast<int>(graph_.ops.size()); ++op) {
      const Op& reader = graph_.ops[op];
      for (std::size_t slot = 0; slot < reader.inputs.size(); ++slot) {
        const int site = reader.input_sites[slot];
        if (site == kNone || placement.quantizer_of_site[site] == kNone) {
          continue;
        }
        const int here = placement.quantizer_of_site[site];
        placement.quantizer_of_site[site] = kNone;
        const int before =
            quantizer_of_input(graph_, placement, op, static_cast<int>(slot));
        placement.quantizer_of_site[site] = here;
        EXPECT_TRUE(before == kNone || before == here) << reader.name << "\n"
                                                       << graph_.to_text();
      }
    }
  }
}

TEST_P(RandomGraphs, ConcatenationsAreTied) {
  for (const QuantConfig& config : {plain_config(), fusing_config()}) {
    const Placement placement = place(graph_, config);
    for (int op = 0; op < static_cast<int>(graph_.ops.size()); ++op) {
      if (!graph::op_traits(graph_.ops[op].kind).ties_inputs) {
        continue;
      }
      const int output =
          placement.quantizer_of_site[graph_.ops[op].output_sites.front()];
      for (int slot = 0; slot < 2; ++slot) {
        const int input = quantizer_of_input(graph_, placement, op, slot);
        EXPECT_TRUE(input == kNone || input == output) << graph_.to_text();
      }
    }
  }
}

TEST_P(RandomGraphs, PlacementIsConsistent) {
  const Placement placement = place(graph_, fusing_config());
  ASSERT_EQ(placement.quantizer_of_site.size(), graph_.sites.size());
  ASSERT_EQ(placement.rules.size(), graph_.sites.size());
  ASSERT_EQ(placement.kernels_of_op.size(), graph_.ops.size());
  std::vector<int> expected(graph_.sites.size(), kNone);
  for (int q = 0; q < static_cast<int>(placement.quantizers.size()); ++q) {
    const QuantizerSpec& spec = placement.quantizers[q];
    EXPECT_TRUE(std::ranges::is_sorted(spec.sites));
    bool has_output = false;
    for (const int site : spec.sites) {
      expected[site] = q;
      const graph::SiteKind kind = graph_.sites[site].kind;
      has_output = has_output || kind == graph::SiteKind::output;
      EXPECT_EQ(kind == graph::SiteKind::param,
                spec.kind == graph::SiteKind::param);
    }
    EXPECT_EQ(has_output, spec.kind == graph::SiteKind::output);
  }
  EXPECT_EQ(placement.quantizer_of_site, expected);
  int highest = kNone;  // quantizers are numbered as they first occur
  for (const int site : sites_in_graph_order(graph_)) {
    EXPECT_FALSE(placement.rules[site].empty());
    EXPECT_LE(placement.quantizer_of_site[site], highest + 1);
    highest = std::max(highest, placement.quantizer_of_site[site]);
  }
}

TEST_P(RandomGraphs, InsideOfASupergroupIsOff) {
  const Placement placement = place(graph_, fusing_config());
  std::vector<bool> seen(graph_.ops.size(), false);
  for (const Supergroup& group : placement.supergroups) {
    for (const int op : group.ops) {
      EXPECT_FALSE(seen[op]) << "supergroups overlap";
      seen[op] = true;
      EXPECT_EQ(
          placement.quantizer_of_site[graph_.ops[op].output_sites[0]] != kNone,
          op == group.ops.back())
          << graph_.to_text();
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Seeds, RandomGraphs, ::testing::Range(0U, 100U));

}  // namespace
}  // namespace aimetpp::config
