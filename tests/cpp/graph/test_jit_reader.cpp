// SPDX-License-Identifier: BSD-3-Clause
// A case is IR text with lines "#: ..." for what the tracer hands over besides:
//
//   #: inputs 1                              num_inputs
//   #: call conv1 0 leaf Conv2d              module ("-": root), ordinal, ...
//   #: call - 0 functional add
//   #: site input 0 0                        kind, call, slot
//   #: site param 0 0 weight                 ... and the parameter's name
//   #: expect                                the lines after it: to_text()
//
// The files in ../ir are traces of small models, and a few graphs written by
// hand; their first lines say of what.
#include <gtest/gtest.h>
#include <torch/csrc/jit/api/function_impl.h>
#include <torch/csrc/jit/ir/ir.h>
#include <torch/csrc/jit/ir/irparser.h>

#include <fstream>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "core/error.h"
#include "graph/jit_reader.h"

namespace aimetpp::graph {
namespace {

struct Case {
  std::string ir;
  std::vector<Call> calls;
  std::vector<Site> sites;
  int num_inputs = 0;
  std::string expected;
};

SiteKind site_kind(const std::string& name) {
  if (name == "input") return SiteKind::input;
  return name == "output" ? SiteKind::output : SiteKind::param;
}

void parse_directive(const std::string& line, Case& parsed) {
  std::istringstream words(line);
  std::string what;
  words >> what;
  if (what == "inputs") {
    words >> parsed.num_inputs;
  } else if (what == "call") {
    Call call;
    std::string form;
    words >> call.module >> call.ordinal >> form >> call.type;
    if (call.module == "-") call.module.clear();
    call.functional = form == "functional";
    parsed.calls.push_back(call);
  } else if (what == "site") {
    Site site;
    std::string kind;
    words >> kind >> site.call >> site.slot >> site.param;
    site.id = static_cast<int>(parsed.sites.size());
    site.kind = site_kind(kind);
    parsed.sites.push_back(site);
  } else {
    ADD_FAILURE() << "unknown directive: " << line;
  }
}

Case parse_case(const std::string& text) {
  Case parsed;
  bool expecting = false;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (line == "#: expect") {
      expecting = true;
    } else if (line.starts_with("#: ")) {
      expecting ? (void)(parsed.expected += line.substr(3) + "\n")
                : parse_directive(line.substr(3), parsed);
    } else if (!line.starts_with("#")) {
      parsed.ir += line + "\n";
    }
  }
  return parsed;
}

OpGraph read(const Case& parsed) {
  torch::jit::Graph ir;
  torch::jit::parseIR(parsed.ir, &ir, /*parse_tensor_constants=*/true);
  return read_jit_graph(ir, parsed.calls, parsed.sites, parsed.num_inputs);
}

OpGraph read(const std::string& text) { return read(parse_case(text)); }

void expect_graph(const std::string& text) {
  const Case parsed = parse_case(text);
  ASSERT_FALSE(parsed.expected.empty());
  EXPECT_EQ(read(parsed).to_text(), parsed.expected);
}

void expect_error(ErrorKind kind, const std::string& text,
                  const std::string& message) {
  try {
    read(text);
    FAIL() << "expected: " << message;
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), kind);
    EXPECT_NE(std::string(error.what()).find(message), std::string::npos)
        << error.what();
  }
}

std::string file_text(const std::string& name) {
  std::ifstream file(std::string(AIMETPP_TEST_DIR) + "/ir/" + name + ".ir");
  EXPECT_TRUE(file.good()) << name;
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

class IrFile : public ::testing::TestWithParam<const char*> {};

TEST_P(IrFile, IsReadAsExpected) { expect_graph(file_text(GetParam())); }

INSTANTIATE_TEST_SUITE_P(
    JitReader, IrFile,
    ::testing::Values("attention", "chunk_cat", "composite_leaves",
                      "constant_factors", "conv_bn_relu", "depthwise",
                      "embedding", "fused_attention", "in_place_two_results",
                      "in_place_view", "lists_and_tuples", "lstm",
                      "module_kinds", "nested_outputs", "residual", "scalars",
                      "unmarked_tensor", "view_writes"),
    [](const auto& info) { return std::string(info.param); });

TEST(JitReader, PoolingToOneElementHasAnOnnxTypeOfItsOwn) {
  const OpGraph graph = read(file_text("module_kinds"));
  ASSERT_EQ(graph.ops[2].name, "one");
  EXPECT_EQ(graph.ops[2].onnx_type, "GlobalAveragePool");
  ASSERT_EQ(graph.ops[3].name, "p");
  EXPECT_EQ(graph.ops[3].onnx_type, "AveragePool");
}

TEST(JitReader, TensorsHaveTheirTracedShapesAndTypes) {
  const OpGraph graph = read(file_text("embedding"));
  const Tensor& ids = graph.tensors[graph.model_inputs[0]];
  EXPECT_FALSE(ids.is_floating);
  EXPECT_EQ(ids.shape, (std::vector<std::int64_t>{2, 5}));
  const Tensor& embedded = graph.tensors[graph.ops[0].outputs[0]];
  EXPECT_TRUE(embedded.is_floating);
  EXPECT_EQ(embedded.shape, (std::vector<std::int64_t>{2, 5, 8}));
  EXPECT_EQ(graph.ops[0].params[0].shape, (std::vector<std::int64_t>{10, 8}));
  EXPECT_FALSE(graph.tensors[graph.model_outputs[2]].is_floating);
}

TEST(JitReader, ModelOutputsAndUsesAreMarked) {
  const OpGraph graph = read(file_text("nested_outputs"));
  EXPECT_EQ(graph.tensors[2].model_input, 2);
  EXPECT_TRUE(graph.tensors[2].uses.empty());
  const Tensor& hidden = graph.tensors[3];
  EXPECT_TRUE(hidden.is_model_output);
  ASSERT_EQ(hidden.uses.size(), 2u);
  EXPECT_EQ(hidden.uses[1].op, 2);
  EXPECT_EQ(hidden.uses[1].slot, 0);
}

// IR text has no functions as values: the call is put in by hand.
TEST(JitReader, ScriptedFunctionIsReadAsItsOps) {
  namespace jit = torch::jit;
  const auto body = std::make_shared<jit::Graph>();
  jit::parseIR(R"IR(
graph(%x : Tensor):
  %s : Tensor = aten::sigmoid(%x)
  %y : Tensor = aten::mul(%x, %s)
  return (%y)
)IR",
               body.get());
  jit::GraphFunction gate("gate", body, nullptr);
  jit::Graph ir;
  jit::parseIR(R"IR(
graph(%x : Float(2, 4)):
  return (%x)
)IR",
               &ir);
  jit::Node* function = ir.insertNode(ir.create(c10::prim::Constant))
                            ->s_(c10::attr::name, "gate");
  function->output()->setType(c10::FunctionType::create(&gate));
  jit::Node* call = ir.insertNode(
      ir.create(c10::prim::CallFunction, {function->output(), ir.inputs()[0]}));
  ir.return_node()->replaceInput(0, call->output());
  EXPECT_EQ(read_jit_graph(ir, {}, {}, 1).to_text(),
            "in: x0\n"
            "sigmoid@0: sigmoid(x0) -> t1\n"
            "mul@1: mul(x0, t1) -> t2\n"
            "out: t2\n");
}

TEST(JitReader, LinearAsAddmmInsideLinear) {
  const std::string text = R"IR(
#: inputs 1
#: call fc 0 leaf TYPE
#: site input 0 0
#: site param 0 0 weight
#: site param 0 0 bias
#: site output 0 0
graph(%x : Float(2, 4), %w : Float(3, 4), %b : Float(3)):
  %c0 : int = prim::Constant[value=0]()
  %c1 : int = prim::Constant[value=1]()
  %c2 : int = prim::Constant[value=2]()
  %c3 : int = prim::Constant[value=3]()
  %m : Float(2, 4) = aimetpp::site(%x, %c0)
  %w1 : Float(3, 4) = aimetpp::site(%w, %c1)
  %wt : Float(4, 3) = aten::t(%w1)
  %b1 : Float(3) = aimetpp::site(%b, %c2)
  %y : Float(2, 3) = aten::addmm(%b1, %m, %wt, %c1, %c1)
  %y1 : Float(2, 3) = aimetpp::site(%y, %c3)
  return (%y1)
#: expect
#: in: x0
#: fc: KIND(x0#0) -> t1#3 {weight#1, bias#2} macs=12
#: out: t1
)IR";
  const auto with = [&](const std::string& type, const std::string& kind) {
    std::string result = text;
    result.replace(result.find("TYPE"), 4, type);
    result.replace(result.find("KIND"), 4, kind);
    return result;
  };
  expect_graph(with("Linear", "linear"));
  expect_graph(with("Conv1D", "addmm"));
}

TEST(JitReader, MatrixProductOfAWeightAndAnActivation) {
  const OpGraph graph = read(R"IR(
#: inputs 1
#: call - 0 functional matmul
#: site input 0 0
#: site param 0 1 table.weight
#: site output 0 0
graph(%x : Float(2, 5, 4), %w : Float(4, 3)):
  %c0 : int = prim::Constant[value=0]()
  %c1 : int = prim::Constant[value=1]()
  %c2 : int = prim::Constant[value=2]()
  %m : Float(2, 5, 4) = aimetpp::site(%x, %c0)
  %w1 : Float(4, 3) = aimetpp::site(%w, %c1)
  %y : Float(2, 5, 3) = aten::matmul(%m, %w1)
  %y1 : Float(2, 5, 3) = aimetpp::site(%y, %c2)
  return (%y1)
)IR");
  EXPECT_EQ(graph.to_text(),
            "in: x0\n"
            "/matmul_0: matmul(x0#0) -> t1#2 {weight#1} macs=60\n"
            "out: t1\n");
  EXPECT_EQ(graph.site_name(1), "/matmul_0.table.weight");
}

TEST(JitReader, MarkerOfAnUnknownSite) {
  const std::string text = R"IR(
#: inputs 1
#: call relu 0 leaf ReLU
#: site input 0 0
graph(%x : Float(2, 4)):
  %id : int = prim::Constant[value=ID]()
  %y : Float(2, 4) = aimetpp::site(%x, %id)
  return (%y)
)IR";
  for (const std::string id : {"1", "-1"}) {
    std::string wrong = text;
    wrong.replace(wrong.find("ID]"), 2, id);
    expect_error(ErrorKind::value, wrong,
                 "site id must be below 1, the number of sites, got " + id);
  }
}

TEST(JitReader, MarkerWhoseIdIsNoConstant) {
  expect_error(ErrorKind::runtime, R"IR(
#: inputs 1
#: call relu 0 leaf ReLU
#: site input 0 0
graph(%x : Float(2, 4)):
  %c0 : int = prim::Constant[value=0]()
  %id : int = aten::size(%x, %c0)
  %y : Float(2, 4) = aimetpp::site(%x, %id)
  return (%y)
)IR",
               "a constant site id");
}

TEST(JitReader, SiteMarkedTwice) {
  expect_error(ErrorKind::value, R"IR(
#: inputs 1
#: call relu 0 leaf ReLU
#: site output 0 0
graph(%x : Float(2, 4)):
  %id : int = prim::Constant[value=0]()
  %y : Float(2, 4) = aten::relu(%x)
  %y1 : Float(2, 4) = aimetpp::site(%y, %id)
  %y2 : Float(2, 4) = aimetpp::site(%y, %id)
  return (%y1, %y2)
)IR",
               "relu is marked again");
}

TEST(JitReader, CallsThatOverlap) {
  expect_error(ErrorKind::runtime, R"IR(
#: inputs 1
#: call outer 0 leaf A
#: call inner 0 leaf B
#: site input 0 0
#: site output 0 0
#: site input 1 0
#: site output 1 0
graph(%x : Float(2, 4)):
  %c0 : int = prim::Constant[value=0]()
  %c1 : int = prim::Constant[value=1]()
  %c2 : int = prim::Constant[value=2]()
  %c3 : int = prim::Constant[value=3]()
  %a : Float(2, 4) = aimetpp::site(%x, %c0)
  %b : Float(2, 4) = aimetpp::site(%a, %c2)
  %y : Float(2, 4) = aten::relu(%b)
  %y1 : Float(2, 4) = aimetpp::site(%y, %c3)
  %y2 : Float(2, 4) = aimetpp::site(%y1, %c1)
  return (%y2)
)IR",
               "inner starts inside outer");
}

TEST(JitReader, SitesAndInputsThatDoNotExist) {
  Case parsed = parse_case(file_text("conv_bn_relu"));
  parsed.num_inputs = 99;
  EXPECT_THROW(read(parsed), Error);
  parsed.num_inputs = 1;
  parsed.sites[2].id = 1;
  EXPECT_THROW(read(parsed), Error);
  parsed.sites[2].id = 2;
  parsed.sites[2].call = 3;
  EXPECT_THROW(read(parsed), Error);
  parsed.sites[2].call = 0;
  EXPECT_EQ(read(parsed).to_text(), parsed.expected);
}

TEST(JitReader, ControlFlowCannotBeRead) {
  expect_error(ErrorKind::runtime, R"IR(
#: inputs 1
graph(%x : Float(2, 4), %flag : Bool()):
  %cond : bool = aten::Bool(%flag)
  %y : Tensor = prim::If(%cond)
    block0():
      %r : Tensor = aten::relu(%x)
      -> (%r)
    block1():
      -> (%x)
  return (%y)
)IR",
               "must be flat, got prim::If");
}

TEST(JitReader, MacsNeedShapes) {
  expect_error(ErrorKind::runtime, R"IR(
#: inputs 1
graph(%x : Tensor, %w : Float(3, 4)):
  %none : NoneType = prim::Constant()
  %y : Tensor = aten::linear(%x, %w, %none)
  return (%y)
)IR",
               "aten::linear need the shape of %x");
}

TEST(JitReader, GraphInputsMustBeTensors) {
  expect_error(ErrorKind::runtime, R"IR(
#: inputs 1
graph(%x : int):
  return (%x)
)IR",
               "a graph input must be a tensor, got int for %x");
}

}  // namespace
}  // namespace aimetpp::graph
