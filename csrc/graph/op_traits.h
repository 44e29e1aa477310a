// SPDX-License-Identifier: BSD-3-Clause
// The one table of what is known about an operation: its role, its ONNX type.
#pragma once

#include <string>
#include <string_view>

#include "core/macros.h"
#include "graph/op_graph.h"

namespace aimetpp::graph {

struct OpTraits {
  OpRole role = OpRole::compute;
  std::string onnx_type;  // "" where ONNX has no such op
  // Its output and its inputs must share one encoding (cat, stack).
  bool ties_inputs = false;
};

// `kind` is an aten or torch function name in any spelling ("add_", "__iadd__",
// "_convolution", "relu"); an unknown one is a compute op with no ONNX type.
// Creation functions ("zeros", "new_full", "rand_like") are metadata: what they
// make is a constant.
AIMETPP_API const OpTraits& op_traits(std::string_view kind);

// False where op_traits() would answer for an unknown op.
AIMETPP_API bool is_known_kind(std::string_view kind);

// "add_", "__add__", "__iadd__", "__radd__", "aten::add" -> "add".
AIMETPP_API std::string canonical_kind(std::string_view name);

// True for an op type that a config file may name (ONNX types).
AIMETPP_API bool is_known_onnx_type(std::string_view onnx_type);

// The known ONNX type nearest in spelling, for "did you mean".
AIMETPP_API std::string nearest_onnx_type(std::string_view onnx_type);

}  // namespace aimetpp::graph
