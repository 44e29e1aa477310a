// SPDX-License-Identifier: BSD-3-Clause
// ONNX graph -> OpGraph. Whoever has parsed the file hands over its main graph
// as plain data, with the shapes and constants that a run of it has shown.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/macros.h"
#include "graph/op_graph.h"

namespace aimetpp::graph {

enum class OnnxOrigin : std::uint8_t {
  computed,   // depends on a graph input, or is one
  constant,   // the same in every run
  parameter,  // that, and stored in the file, or computed from what is stored
};

struct OnnxValue {
  std::string name;
  OnnxOrigin origin = OnnxOrigin::computed;
  bool is_floating = false;
  std::optional<std::vector<std::int64_t>> shape;
  std::optional<double> number;  // of a constant of one element
};

struct OnnxNode {
  std::string name;          // unique
  std::string op_type;       // "Conv"
  std::vector<int> inputs;   // value indices; kNone: left out
  std::vector<int> outputs;  // value indices; kNone: left out
  // What the graphs inside the node (of If, Loop, Scan) read from outside.
  std::vector<int> captured;
  std::map<std::string, std::int64_t> numbers;  // attributes: "transB", "axis"
  std::map<std::string, std::string> texts;     // "equation", "mode"
  std::vector<MaskFacts> masks;  // by input; empty where nothing was looked at
};

struct OnnxGraph {
  std::vector<OnnxValue> values;
  std::vector<OnnxNode> nodes;  // as they run
  std::vector<int> inputs;      // value indices
  std::vector<int> outputs;     // value indices
};

// Where in the ONNX graph a site is: at an input of a node, or at an output.
struct OnnxPlace {
  int node = kNone;
  int slot = kNone;
};

struct OnnxReading {
  OpGraph graph;  // its calls have the names of nodes, its sites of values
  std::vector<OnnxPlace> places;  // by site
};

// Every node whose floating results vary is a call. A constant input is a
// parameter where its layer has one there ("weight") or it is stored in the
// file, unless it is a mask or a single number. A MatMul by a constant whose
// sum with a constant vector is all that reads it is a linear layer with a
// bias, the call of both nodes.
// Throws a value error for an index that is out of range.
AIMETPP_API OnnxReading read_onnx_graph(const OnnxGraph& graph);

}  // namespace aimetpp::graph
