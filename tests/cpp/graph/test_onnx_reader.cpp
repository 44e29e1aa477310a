// SPDX-License-Identifier: BSD-3-Clause
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "config/params.h"
#include "core/error.h"
#include "graph/onnx_reader.h"

namespace aimetpp::graph {
namespace {

using Shape = std::vector<std::int64_t>;

// Values and nodes by name.
class GraphBuilder {
 public:
  int input(const std::string& name, Shape shape) {
    graph_.inputs.push_back(add(name, OnnxOrigin::computed, std::move(shape)));
    return graph_.inputs.back();
  }
  int parameter(const std::string& name, Shape shape) {
    return add(name, OnnxOrigin::parameter, std::move(shape));
  }
  int number(const std::string& name, double number) {
    const int value = add(name, OnnxOrigin::constant, {1});
    graph_.values[value].number = number;
    return value;
  }
  int tensor(const std::string& name, Shape shape) {
    return add(name, OnnxOrigin::computed, std::move(shape));
  }
  int integers(const std::string& name, Shape shape) {
    const int value = tensor(name, std::move(shape));
    graph_.values[value].is_floating = false;
    return value;
  }
  OnnxNode& node(const std::string& op_type, std::vector<int> inputs,
                 std::vector<int> outputs) {
    OnnxNode node;
    node.name = op_type + "_" + std::to_string(graph_.nodes.size());
    node.op_type = op_type;
    node.inputs = std::move(inputs);
    node.outputs = std::move(outputs);
    graph_.nodes.push_back(std::move(node));
    return graph_.nodes.back();
  }
  OnnxReading read(std::vector<int> outputs) {
    graph_.outputs = std::move(outputs);
    return read_onnx_graph(graph_);
  }
  OnnxGraph& graph() { return graph_; }

 private:
  int add(const std::string& name, OnnxOrigin origin, Shape shape) {
    graph_.values.push_back(
        {name, origin, true, std::move(shape), std::nullopt});
    return static_cast<int>(graph_.values.size()) - 1;
  }

  OnnxGraph graph_;
};

TEST(OnnxReader, ReadsLayersAsPyTorchsOps) {
  GraphBuilder b;
  const int x = b.input("x", {2, 3, 8, 8});
  const int c = b.tensor("c", {2, 4, 6, 6});
  const int p = b.tensor("p", {2, 4, 3, 3});
  b.node("Conv", {x, b.parameter("w", {4, 3, 3, 3}), b.parameter("bias", {4})},
         {c});
  b.node("MaxPool", {c}, {p});
  const OnnxReading reading = b.read({p});
  // 4 x 6 x 6 outputs of one sample, 27 products each.
  EXPECT_EQ(reading.graph.to_text(),
            "in: x0\n"
            "Conv_0: conv2d(x0#0) -> t1#3 {weight#1, bias#2} macs=3888\n"
            "MaxPool_1: max_pool(t1#4) -> t2#5 grid_preserving\n"
            "out: t2\n");
  EXPECT_EQ(reading.graph.batch, 2);
  EXPECT_EQ(reading.graph.site_name(1), "w");
  EXPECT_EQ(reading.graph.site_name(4), "c");
  EXPECT_EQ(reading.places[2].node, 0);
  EXPECT_EQ(reading.places[2].slot, 2);
  EXPECT_EQ(reading.graph.ops[1].onnx_type, "MaxPool");
}

TEST(OnnxReader, MatMulAndAddAreALinearLayer) {
  GraphBuilder b;
  const int x = b.input("x", {1, 7, 5});
  const int m = b.tensor("m", {1, 7, 6});
  const int y = b.tensor("y", {1, 7, 6});
  b.node("MatMul", {x, b.parameter("w", {5, 6})}, {m});
  b.node("Add", {b.parameter("bias", {6}), m}, {y});
  const OnnxReading reading = b.read({y});
  EXPECT_EQ(reading.graph.to_text(),
            "in: x0\n"
            "MatMul_0: linear(x0#0) -> t1#3 {weight#1, bias#2} macs=210\n"
            "out: t1\n");
  const Op& op = reading.graph.ops[0];
  EXPECT_EQ(op.onnx_type, "Gemm");
  EXPECT_EQ(config::channel_axis_of(reading.graph, op, op.params[0]), 1);
  EXPECT_EQ(reading.places[2].node, 1);  // the bias is read by the Add
  EXPECT_EQ(reading.places[2].slot, 0);
  EXPECT_EQ(reading.places[3].node, 1);
}

TEST(OnnxReader, SumsThatOthersReadTooAreNoLinearLayer) {
  GraphBuilder b;
  const int x = b.input("x", {1, 5});
  const int m = b.tensor("m", {1, 6});
  const int y = b.tensor("y", {1, 6});
  b.node("MatMul", {x, b.parameter("w", {5, 6})}, {m});
  b.node("Add", {m, b.parameter("bias", {6})}, {y});
  EXPECT_EQ(b.read({y, m}).graph.to_text(),
            "in: x0\n"
            "MatMul_0: matmul(x0#0) -> t1#2 {weight#1} macs=30\n"
            "Add_1: add(t1#3) -> t2#5 {bias#4}\n"
            "out: t2, t1\n");
}

TEST(OnnxReader, TellsTheAxisOfOutputChannels) {
  for (const std::int64_t transposed : {0, 1}) {
    GraphBuilder b;
    const int x = b.input("x", {2, 5});
    const int y = b.tensor("y", {2, 6});
    const Shape weight = transposed != 0 ? Shape{6, 5} : Shape{5, 6};
    b.node("Gemm", {x, b.parameter("w", weight)}, {y}).numbers["transB"] =
        transposed;
    const OpGraph graph = b.read({y}).graph;
    const Op& op = graph.ops[0];
    EXPECT_EQ(op.macs, 30);
    EXPECT_EQ(config::channel_axis_of(graph, op, op.params[0]),
              transposed != 0 ? 0 : 1);
  }
}

TEST(OnnxReader, GemmOfATransposedInputContractsItsFirstAxis) {
  GraphBuilder b;
  const int x = b.input("x", {5, 2});
  const int y = b.tensor("y", {2, 6});
  b.node("Gemm", {x, b.parameter("w", {5, 6})}, {y}).numbers["transA"] = 1;
  const OpGraph graph = b.read({y}).graph;
  EXPECT_EQ(graph.ops[0].macs * graph.batch, 60);
}

TEST(OnnxReader, ConstantsAreParametersInputsOrNumbers) {
  GraphBuilder b;
  const int x = b.input("x", {1, 4});
  const int scaled = b.tensor("scaled", {1, 4});
  const int moved = b.tensor("moved", {1, 4});
  const int summed = b.tensor("summed", {1, 4});
  b.node("Mul", {b.number("half", 0.5), x}, {scaled});
  b.node("Mul", {scaled, b.parameter("block.gamma", {4})}, {moved});
  const int table = b.parameter("table", {4});
  b.graph().values[table].origin = OnnxOrigin::constant;
  b.node("Add", {moved, table}, {summed});
  EXPECT_EQ(b.read({summed}).graph.to_text(),
            "in: x0\n"
            "Mul_0: mul(x0#0) -> t1#1 factor=0.5\n"
            "Mul_1: mul(t1#2) -> t2#4 {gamma#3}\n"
            "Add_2: add(t2#5, c3#6) -> t4#7\n"
            "out: t4\n");
}

TEST(OnnxReader, AMaskInTheFileIsNoParameter) {
  GraphBuilder b;
  const int x = b.input("x", {1, 4});
  const int masked = b.tensor("masked", {1, 4});
  const int y = b.tensor("y", {1, 4});
  b.node("Add", {x, b.parameter("mask", {4})}, {masked}).masks = {
      {}, {MaskValues::mask, -1000}};
  b.node("Softmax", {masked}, {y});
  const OpGraph graph = b.read({y}).graph;
  EXPECT_EQ(graph.ops[0].kind, "mask_add");
  EXPECT_EQ(graph.ops[0].mask_slot, 1);
}

TEST(OnnxReader, LimitsAndScalesAreNoData) {
  GraphBuilder b;
  const int x = b.input("x", {1, 3, 4, 4});
  const int clipped = b.tensor("clipped", {1, 3, 4, 4});
  const int y = b.tensor("y", {1, 3, 8, 8});
  b.node("Clip", {x, b.number("low", 0), b.number("high", 6)}, {clipped});
  b.node("Resize", {clipped, kNone, b.parameter("scales", {4})}, {y}).texts = {
      {"mode", "linear"}};
  EXPECT_EQ(b.read({y}).graph.to_text(),
            "in: x0\n"
            "Clip_0: clamp(x0#0) -> t1#1\n"
            "Resize_1: interpolate(t1#2) -> t2#3\n"
            "out: t2\n");
}

// "nearest" is the default mode of both types.
TEST(OnnxReader, ResizingToTheNearestElementKeepsTheGrid) {
  for (const char* type : {"Resize", "Upsample"}) {
    for (const char* mode : {"", "nearest", "linear", "cubic"}) {
      GraphBuilder b;
      const int x = b.input("x", {1, 3, 4, 4});
      const int y = b.tensor("y", {1, 3, 8, 8});
      OnnxNode& node = b.node(type, {x}, {y});
      if (*mode != '\0') node.texts["mode"] = mode;
      const OpGraph graph = b.read({y}).graph;
      const bool nearest = std::string("nearest").starts_with(mode);
      EXPECT_EQ(graph.ops[0].role,
                nearest ? OpRole::grid_preserving : OpRole::compute)
          << type << " " << mode;
      EXPECT_EQ(graph.ops[0].onnx_type, "Resize");
    }
  }
}

TEST(OnnxReader, IntegersAndPredicatesAreNoCalls) {
  GraphBuilder b;
  const int x = b.input("x", {2, 4});
  const int shape = b.integers("shape", {2});
  const int y = b.tensor("y", {2, 4});
  b.node("Shape", {x}, {shape});
  b.node("Reshape", {x, shape}, {y});
  const OpGraph graph = b.read({y}).graph;
  EXPECT_EQ(graph.calls.size(), 1U);
  EXPECT_EQ(graph.ops.back().name, "Reshape_1");
}

TEST(OnnxReader, CountsRecurrencesOfAllDirections) {
  GraphBuilder b;
  const int x = b.input("x", {5, 2, 3});  // time, batch, features
  const int y = b.tensor("y", {5, 2, 2, 4});
  b.node("LSTM",
         {x, b.parameter("w", {2, 16, 3}), b.parameter("r", {2, 16, 4}),
          b.parameter("b", {2, 32})},
         {y});
  const OpGraph graph = b.read({y}).graph;
  EXPECT_EQ(graph.batch, 2);
  // 5 steps x 2 directions x 16 rows of 3 and 4 columns.
  EXPECT_EQ(graph.ops[0].macs, 5 * 2 * 16 * (3 + 4));
  EXPECT_EQ(graph.ops[0].params.size(), 3U);
}

TEST(OnnxReader, WhatInnerGraphsReadIsAnInputOfTheirNode) {
  GraphBuilder b;
  const int x = b.input("x", {1, 4});
  const int condition = b.integers("condition", {});
  b.graph().inputs.push_back(condition);
  const int y = b.tensor("y", {1, 4});
  b.node("If", {condition}, {y}).captured = {x};
  const OpGraph graph = b.read({y}).graph;
  ASSERT_EQ(graph.ops.size(), 1U);
  EXPECT_EQ(graph.ops[0].onnx_type, "If");
  EXPECT_EQ(graph.ops[0].inputs, std::vector<int>{graph.model_inputs[0]});
}

TEST(OnnxReader, AnUnknownTypeComputes) {
  GraphBuilder b;
  const int x = b.input("x", {1, 4});
  const int y = b.tensor("y", {1, 4});
  b.node("Hardmax", {x}, {y});
  const Op op = b.read({y}).graph.ops.at(0);
  EXPECT_EQ(op.role, OpRole::compute);
  EXPECT_EQ(op.kind, "Hardmax");
  EXPECT_EQ(op.onnx_type, "Hardmax");
}

TEST(OnnxReader, RefusesIndicesThatAreNoValues) {
  GraphBuilder b;
  const int x = b.input("x", {1});
  b.node("Relu", {7}, {x});
  EXPECT_THROW(b.read({x}), Error);
}

}  // namespace
}  // namespace aimetpp::graph
