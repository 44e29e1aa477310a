// SPDX-License-Identifier: BSD-3-Clause
// The model as plain data: operations, the tensors between them, and the sites
// where a tensor can be quantized. Readers (TorchScript today) build it; config
// placement, quantizer groups, bit-ops and request resolution only read it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/macros.h"

namespace aimetpp::graph {

inline constexpr int kNone = -1;  // "no such index" in every int index below

enum class SiteKind : std::uint8_t { input, output, param };

AIMETPP_API const char* to_string(SiteKind kind);

AIMETPP_API std::int64_t num_elements(const std::vector<std::int64_t>& shape);

// One call of a leaf module, or one functional operation (`x + y`), in the
// order in which the traced forward made them.
struct AIMETPP_API Call {
  std::string module;  // dotted name; functional: the calling module; root: ""
  int ordinal = 0;     // k-th call of that module / of that op in that module
  bool functional = false;  // an operation outside any leaf module
  std::string type;         // class name of the module, or the function's name
  std::string source;       // "file.py:line" of the call; may be empty
  std::string label = {};   // a name of its own, as an ONNX node has

  // The label; without one "conv1", "relu:1" (second call), "layer1.0/add_0",
  // "/add_0" in the root; the class name for a root that is itself a leaf.
  [[nodiscard]] std::string name() const;
};

enum class MaskValues : std::uint8_t {
  none,   // not looked at, or no mask
  zeros,  // a mask that hides nothing, or values that happen to be 0
  mask,   // nothing but zeros and numbers that mask
  some,   // other values beside numbers that mask
};

// What the traced values of a tensor say of it as a mask (graph/masks.h).
struct MaskFacts {
  MaskValues values = MaskValues::none;
  double masked_below = 0;  // its low numbers, half again as high, are below
};

// One place where a tensor can be quantized.
struct AIMETPP_API Site {
  int id = kNone;  // index in OpGraph::sites and argument of the marker op
  SiteKind kind = SiteKind::output;
  int call = kNone;  // index in OpGraph::calls
  // Which input or output of the call; of a param that is an argument of a
  // functional call which argument, else 0.
  int slot = 0;
  // Where kind is param: the parameter's name ("weight"). A functional call
  // names it by its path in the model, and rows of it by their indices:
  // "encoder.attn.in_proj_weight[0:64]".
  std::string param;
  MaskFacts mask = {};     // of an input that is added to another one
  std::string label = {};  // a name of its own, as an ONNX tensor has

  // The name in its module: "weight", "in_proj_weight".
  [[nodiscard]] std::string param_name() const;
};

enum class Origin : std::uint8_t { op, model_input, constant, parameter };

AIMETPP_API const char* to_string(Origin origin);

struct Use {
  int op = kNone;
  int slot = 0;  // index in Op::inputs
};

struct Tensor {
  Origin origin = Origin::op;
  int producer = kNone;     // op index where origin is op
  int model_input = kNone;  // position among the flattened model inputs
  int parameter = kNone;    // as Param::parameter, where origin is parameter
  bool is_model_output = false;
  bool is_floating = true;
  std::vector<std::int64_t> shape;  // as traced; empty where unknown or 0-d
  std::vector<Use> uses;
  // All that reads it reads it as a mask.
  bool is_mask = false;
  // Values not above it are masked: on the way to a softmax, which makes them
  // 0, no quantizer's range holds them.
  std::optional<double> masked_below;
};

// What an op does to the grid of its input.
enum class OpRole : std::uint8_t {
  compute,          // makes new values: its output wants a quantizer
  grid_preserving,  // moves or picks values: its output has its input's grid
  metadata,         // yields no values (size, shape arithmetic)
};

AIMETPP_API const char* to_string(OpRole role);

struct Param {
  int site = kNone;
  std::string name;  // as registered in the module: "weight"
  std::vector<std::int64_t> shape;
  // Which parameter of the model it is: two calls of one module, or two modules
  // with tied weights, read the same number at sites of their own.
  int parameter = kNone;
  // The axis of its output channels, where the op's kind does not tell.
  int channel_axis = kNone;
};

struct Op {
  std::string kind;       // aten base name: "conv2d", "add", "cat", "relu"
  std::string onnx_type;  // "Conv", "Add", ...; "" where ONNX has none
  OpRole role = OpRole::compute;
  int call = kNone;  // kNone: seen in the IR only (a view between calls)
  std::string name;  // the call's name, or "<kind>@<n>"
  std::string source;
  std::vector<int> inputs;        // tensor indices; floating tensors only
  std::vector<int> input_sites;   // same length; kNone where unmarked
  std::vector<int> outputs;       // tensor indices
  std::vector<int> output_sites;  // same length; kNone where unmarked
  std::vector<Param> params;
  // Multiply-accumulates of one sample (batch dimension divided out); 0 for an
  // op that does not multiply by a weight or another activation.
  std::int64_t macs = 0;
  // The input that is a mask of the other one or of a parameter; kNone where
  // the op applies no mask.
  int mask_slot = kNone;
  // A product of two activations (matmul, attention) rather than of an
  // activation and a parameter.
  bool multiplies_activations = false;
  // Of an op that only multiplies its first input by a positive number that is
  // the same in every run (`x * 2`, `x / 8`): that number. Its results lie on
  // its input's grid, with another scale.
  std::optional<double> rescale;
};

// Ops are in topological order. Indices are stable: nothing is ever removed.
struct AIMETPP_API OpGraph {
  std::vector<Call> calls;
  std::vector<Site> sites;
  std::vector<Op> ops;
  std::vector<Tensor> tensors;
  std::vector<int> model_inputs;   // tensor indices
  std::vector<int> model_outputs;  // tensor indices, in flattened order
  std::int64_t batch = 1;          // samples in the traced example

  // The site's label; without one, unique: "conv1" (output 0),
  // "lstm.output.1", "conv1.input.0", "conv1.weight".
  [[nodiscard]] std::string site_name(int site) const;
  // The op that made the call to which the site belongs; kNone if it never ran.
  [[nodiscard]] int op_of_site(int site) const;
  // By call: the first op that it made; kNone where it never ran.
  [[nodiscard]] std::vector<int> ops_of_calls() const;
  // The tensor at an input or output site; kNone for params and unused sites.
  [[nodiscard]] int tensor_of_site(int site) const;
  // Follows `tensor` upstream through grid-preserving ops (their first input)
  // to the tensor that holds its values: made by a compute op, a model input, a
  // constant or a parameter.
  [[nodiscard]] int value_source(int tensor) const;
  // One line for the model inputs, one per op, one for the model outputs, for
  // tests and error messages: "conv1: conv2d(x0#0) -> t1#2 {weight#1}
  // macs=9216". A tensor's letter is its origin (x model input, t op, c
  // constant, p parameter), "#" precedes the site at which it was marked.
  [[nodiscard]] std::string to_text() const;
};

}  // namespace aimetpp::graph
