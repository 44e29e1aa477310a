// SPDX-License-Identifier: BSD-3-Clause
#include "graph/batch_size.h"

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

namespace aimetpp::graph {
namespace {

using Shape = std::vector<std::int64_t>;

// A chain of ops from one input, each with one tensor argument.
class Chain {
 public:
  explicit Chain(Shape input) { ir_.inputs = {last_ = add(std::move(input))}; }

  Chain& then(const std::string& kind, Shape result, std::size_t argument = 0) {
    IrNode node;
    node.kind = "aten::" + kind;
    node.args.resize(argument + 1);
    node.args[argument].tensors = {last_};
    node.outputs = {last_ = add(std::move(result))};
    ir_.nodes.push_back(std::move(node));
    return *this;
  }

  Chain& lstm(bool batch_first) {
    IrNode node;
    node.kind = "aten::lstm";
    node.args.resize(9);
    node.args[0].tensors = {last_};
    for (std::size_t i = 3; i < 9; ++i) node.args[i].number = 0;
    node.args[8].number = batch_first ? 1 : 0;
    node.outputs = {last_ = add({5, 3, 7})};
    ir_.nodes.push_back(std::move(node));
    return *this;
  }

  [[nodiscard]] std::int64_t size() const { return batch_size(ir_); }

 private:
  int add(Shape shape) {
    IrValue value;
    value.shape = std::move(shape);
    ir_.values.push_back(std::move(value));
    return static_cast<int>(ir_.values.size()) - 1;
  }

  FlatIr ir_;
  int last_ = kNone;
};

TEST(BatchSize, IsTheFirstDimension) {
  EXPECT_EQ(Chain({5, 3, 4}).then("linear", {5, 3, 6}).size(), 5);
  EXPECT_EQ(Chain({5, 3, 4}).lstm(/*batch_first=*/true).size(), 5);
  EXPECT_EQ(Chain({}).size(), 1);
  EXPECT_EQ(batch_size(FlatIr{}), 1);
}

TEST(BatchSize, IsTheSecondWhereARecurrenceIsTimeMajor) {
  EXPECT_EQ(Chain({5, 3, 4}).lstm(false).size(), 3);
  EXPECT_EQ(Chain({5, 3, 4})
                .then("linear", {5, 3, 6})
                .then("relu", {5, 3, 6})
                .lstm(false)
                .size(),
            3);
  EXPECT_EQ(Chain({5, 3}).then("embedding", {5, 3, 6}, 1).lstm(false).size(),
            3);
}

// The recurrence reads something else than the input as it came.
TEST(BatchSize, FollowsNoReorderedDimensions) {
  EXPECT_EQ(Chain({3, 5, 4}).then("transpose", {5, 3, 4}).lstm(false).size(),
            3);
  EXPECT_EQ(Chain({2, 4, 8, 9})
                .then("flatten", {2, 4, 72})
                .then("permute", {72, 2, 4})
                .lstm(false)
                .size(),
            2);
  EXPECT_EQ(Chain({5, 3, 4}).then("select", {3, 4}).lstm(false).size(), 5);
}

}  // namespace
}  // namespace aimetpp::graph
