// SPDX-License-Identifier: BSD-3-Clause
// What a change of quantizers reaches, on graphs followed by hand.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "graph/downstream.h"
#include "support/graph_builder.h"

namespace aimetpp::graph {
namespace {

using ::aimetpp::testing::GraphBuilder;
using ::aimetpp::testing::with_weight;
using Names = std::vector<std::string>;

// Names of the calls downstream of the sites of these names.
Names downstream(const OpGraph& graph, const Names& sites) {
  std::vector<int> ids;
  for (const std::string& name : sites) {
    for (const Site& site : graph.sites) {
      if (graph.site_name(site.id) == name) ids.push_back(site.id);
    }
  }
  EXPECT_EQ(ids.size(), sites.size());
  Names names;
  for (const int call : downstream_calls(graph, ids)) {
    names.push_back(graph.calls[call].name());
  }
  return names;
}

// conv1 -> {left -> flatten, right} -> add -> fc; aux reads conv1, alone.
OpGraph branches() {
  GraphBuilder b;
  const int x = b.leaf("conv2d", "conv1", {b.input()}, with_weight());
  const int left = b.leaf("conv2d", "left", {x}, with_weight());
  const int flat = b.bare("flatten", {left});
  const int right = b.leaf("conv2d", "right", {x}, with_weight());
  const int sum = b.functional("add", "", {flat, right});
  b.output(b.leaf("linear", "fc", {sum}, with_weight()));
  b.output(b.leaf("relu", "aux", {x}));
  return b.build();
}

TEST(DownstreamCalls, NothingChangesNothing) {
  EXPECT_EQ(downstream(branches(), {}), (Names{}));
}

TEST(DownstreamCalls, ABranchReachesItsJoinAndNotItsSister) {
  EXPECT_EQ(downstream(branches(), {"left"}), (Names{"left", "/add_0", "fc"}));
  EXPECT_EQ(downstream(branches(), {"right.weight"}),
            (Names{"right", "/add_0", "fc"}));
  EXPECT_EQ(downstream(branches(), {"fc"}), (Names{"fc"}));
  EXPECT_EQ(downstream(branches(), {"aux"}), (Names{"aux"}));
}

TEST(DownstreamCalls, WhatAllReadReachesAll) {
  const Names all{"conv1", "left", "right", "/add_0", "fc", "aux"};
  EXPECT_EQ(downstream(branches(), {"conv1"}), all);
  EXPECT_EQ(downstream(branches(), {"conv1.input.0"}), all);
}

TEST(DownstreamCalls, SeveralSitesReachWhatEachDoes) {
  EXPECT_EQ(downstream(branches(), {"right", "aux"}),
            (Names{"right", "/add_0", "fc", "aux"}));
}

// relu -> conv -> relu:1. The second call's site leaves the first call alone; a
// weight that two calls read changes both.
TEST(DownstreamCalls, CallsOfOneModuleAreApart) {
  GraphBuilder b;
  const int first = b.leaf("relu", "relu", {b.input()});
  const int conv = b.leaf("conv2d", "conv", {first}, with_weight());
  const int second = b.leaf("relu", "relu", {conv});
  b.output(b.leaf("conv2d", "conv", {second}, with_weight()));
  const OpGraph graph = b.build();
  EXPECT_EQ(downstream(graph, {"relu:1"}), (Names{"relu:1", "conv:1"}));
  EXPECT_EQ(downstream(graph, {"conv.weight"}),
            (Names{"conv", "relu:1", "conv:1"}));
}

}  // namespace
}  // namespace aimetpp::graph
