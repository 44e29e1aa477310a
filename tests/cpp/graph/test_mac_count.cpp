// SPDX-License-Identifier: BSD-3-Clause
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "core/error.h"
#include "graph/mac_count.h"

namespace aimetpp::graph {
namespace {

using Shape = std::vector<std::int64_t>;

// One node whose arguments and outputs are given by their shapes.
class NodeBuilder {
 public:
  explicit NodeBuilder(std::string kind) { node_.kind = std::move(kind); }

  NodeBuilder& arg(Shape shape) { return list({std::move(shape)}); }
  NodeBuilder& list(const std::vector<Shape>& shapes) {
    IrArg arg;
    for (const Shape& shape : shapes) arg.tensors.push_back(add(shape));
    node_.args.push_back(std::move(arg));
    return *this;
  }
  NodeBuilder& number(std::int64_t value) {
    node_.args.push_back({{}, value, ""});
    return *this;
  }
  NodeBuilder& text(const std::string& value) {
    node_.args.push_back({{}, std::nullopt, value});
    return *this;
  }
  NodeBuilder& none() { return list({}); }
  NodeBuilder& output(const Shape& shape) {
    node_.outputs.push_back(add(shape));
    return *this;
  }

  [[nodiscard]] std::optional<MacCount> count() const {
    return count_macs(ir_, node_);
  }
  [[nodiscard]] std::int64_t macs() const {
    const auto result = count();
    return result ? result->macs : -1;
  }

 private:
  int add(const Shape& shape) {
    IrValue value;
    value.shape = shape;
    ir_.values.push_back(std::move(value));
    return static_cast<int>(ir_.values.size()) - 1;
  }

  FlatIr ir_;
  IrNode node_;
};

// input, weight, bias, stride, padding, dilation, transposed
NodeBuilder convolution(const Shape& input, const Shape& weight,
                        const Shape& output, bool transposed) {
  NodeBuilder node("aten::_convolution");
  node.arg(input).arg(weight).none().none().none().none();
  node.number(transposed).output(output);
  return node;
}

TEST(CountMacs, Convolutions) {
  // 8*6*6 outputs, each 4*3*3.
  EXPECT_EQ(convolution({1, 4, 8, 8}, {8, 4, 3, 3}, {1, 8, 6, 6}, false).macs(),
            8 * 36 * 36);
  // Two groups: each output sees 2 input channels.
  EXPECT_EQ(convolution({1, 4, 8, 8}, {8, 2, 3, 3}, {1, 8, 6, 6}, false).macs(),
            8 * 36 * 18);
  // Without a batch.
  EXPECT_EQ(convolution({4, 9}, {6, 4, 3}, {6, 7}, false).macs(), 6 * 7 * 12);
  // Transposed: 4*5 inputs, each meets 6 output channels * 3.
  EXPECT_EQ(convolution({1, 4, 5}, {4, 6, 3}, {1, 6, 7}, true).macs(),
            4 * 5 * 18);
  EXPECT_EQ(NodeBuilder("aten::conv_transpose2d")
                .arg({1, 4, 2, 2})
                .arg({4, 3, 2, 2})
                .output({1, 3, 4, 4})
                .macs(),
            4 * 4 * 12);
}

TEST(CountMacs, LinearOfAnyRank) {
  for (const Shape& rows : {Shape{}, Shape{7}, Shape{2, 7}, Shape{2, 3, 7}}) {
    Shape input = rows;
    Shape output = rows;
    input.push_back(4);
    output.push_back(5);
    std::int64_t num_rows = 1;
    for (const std::int64_t size : rows) num_rows *= size;
    EXPECT_EQ(NodeBuilder("aten::linear")
                  .arg(input)
                  .arg({5, 4})
                  .none()
                  .output(output)
                  .macs(),
              num_rows * 5 * 4);
  }
}

TEST(CountMacs, MatrixProducts) {
  const auto product = [](const std::string& kind, const Shape& lhs,
                          const Shape& rhs, const Shape& output) {
    return NodeBuilder(kind).arg(lhs).arg(rhs).output(output).macs();
  };
  EXPECT_EQ(product("aten::mm", {2, 3}, {3, 4}, {2, 4}), 24);
  EXPECT_EQ(product("aten::bmm", {5, 2, 3}, {5, 3, 4}, {5, 2, 4}), 120);
  EXPECT_EQ(product("aten::matmul", {5, 1, 2, 3}, {6, 3, 4}, {5, 6, 2, 4}),
            5 * 6 * 2 * 3 * 4);
  EXPECT_EQ(product("aten::matmul", {3}, {3}, {}), 3);
  EXPECT_EQ(product("aten::mv", {2, 3}, {3}, {2}), 6);
  EXPECT_EQ(product("aten::mul", {2, 3}, {2, 3}, {2, 3}), -1);
}

TEST(CountMacs, ProductsWithAnAddendMultiplyTheOtherTwo) {
  const auto node = [](const std::string& kind, const Shape& lhs,
                       const Shape& rhs, const Shape& output) {
    return NodeBuilder(kind).arg(output).arg(lhs).arg(rhs).output(output);
  };
  EXPECT_EQ(node("aten::addmm", {2, 3}, {3, 4}, {2, 4}).macs(), 24);
  EXPECT_EQ(node("aten::baddbmm", {5, 2, 3}, {5, 3, 4}, {5, 2, 4}).macs(), 120);
  EXPECT_EQ(node("aten::addbmm", {5, 2, 3}, {5, 3, 4}, {2, 4}).macs(), 120);
  const auto count = node("aten::addmm", {2, 3}, {3, 4}, {2, 4}).count();
  ASSERT_TRUE(count);
  EXPECT_EQ(count->lhs, 1);
  EXPECT_EQ(count->rhs, 2);
}

TEST(CountMacs, EinsumMultipliesAllDistinctIndices) {
  const auto einsum = [](const std::string& equation,
                         const std::vector<Shape>& shapes) {
    return NodeBuilder("aten::einsum")
        .text(equation)
        .list(shapes)
        .none()
        .output({1})
        .macs();
  };
  EXPECT_EQ(einsum("ij,jk->ik", {{2, 3}, {3, 4}}), 24);
  EXPECT_EQ(einsum("b i j , b j k", {{5, 2, 3}, {5, 3, 4}}), 120);
  EXPECT_EQ(einsum("...ij,...jk->...ik", {{6, 5, 2, 3}, {5, 3, 4}}), 6 * 120);
  EXPECT_EQ(einsum("ij,jk,kl->il", {{2, 3}, {3, 4}, {4, 5}}), 2 * 3 * 4 * 5);
  EXPECT_EQ(einsum("ij->ji", {{2, 3}}), -1) << "a transposition";
}

TEST(CountMacs, Attention) {
  // 3 heads, 5 queries and 7 keys of width 4, values of width 6.
  EXPECT_EQ(NodeBuilder("aten::scaled_dot_product_attention")
                .arg({2, 3, 5, 4})
                .arg({2, 3, 7, 4})
                .arg({2, 3, 7, 6})
                .output({2, 3, 5, 6})
                .macs(),
            2 * 3 * (5 * 7 * 4 + 5 * 7 * 6));
}

TEST(CountMacs, RecurrentLayers) {
  const std::vector<Shape> gru = {{15, 4}, {15, 5}, {15}, {15}};
  EXPECT_EQ(NodeBuilder("aten::gru")
                .arg({7, 2, 4})
                .arg({1, 2, 5})
                .list(gru)
                .output({7, 2, 5})
                .macs(),
            7 * 2 * (15 * 4 + 15 * 5));
  // Packed: 9 rows in all, then the batch sizes, the states and the weights.
  EXPECT_EQ(NodeBuilder("aten::gru")
                .arg({9, 4})
                .arg({7})
                .arg({1, 2, 5})
                .list(gru)
                .output({9, 5})
                .macs(),
            9 * (15 * 4 + 15 * 5));
  EXPECT_EQ(NodeBuilder("aten::gru_cell")
                .arg({2, 4})
                .arg({2, 5})
                .arg({15, 4})
                .arg({15, 5})
                .output({2, 5})
                .macs(),
            2 * (15 * 4 + 15 * 5));
}

TEST(CountMacs, BilinearFormsOneProductPerOutput) {
  EXPECT_EQ(NodeBuilder("aten::bilinear")
                .arg({2, 3})
                .arg({2, 4})
                .arg({5, 3, 4})
                .output({2, 5})
                .macs(),
            2 * 5 * 3 * 4);
}

TEST(CountMacs, UnknownShapeIsAnError) {
  FlatIr ir;
  ir.values.resize(3);
  ir.values[1].shape = Shape{3, 4};
  ir.values[2].shape = Shape{2, 4};
  ir.values[0].name = "x";
  IrNode node;
  node.kind = "aten::mm";
  node.args = {{{0}, std::nullopt, ""}, {{1}, std::nullopt, ""}};
  node.outputs = {2};
  node.source = "net.py:7";
  try {
    count_macs(ir, node);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::runtime);
    EXPECT_STREQ(error.what(),
                 "read_jit_graph: the multiply-accumulates of aten::mm "
                 "(net.py:7) need the shape of %x, which the trace does not "
                 "have");
  }
}

}  // namespace
}  // namespace aimetpp::graph
