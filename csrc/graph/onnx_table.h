// SPDX-License-Identifier: BSD-3-Clause
// What the reader of ONNX graphs knows of op types. Internal to graph/.
#pragma once

#include <string>
#include <string_view>

namespace aimetpp::graph {

// The kind of op (graph/op_traits.h) that an ONNX type is: "Relu" -> "relu". A
// type that the table of ops does not have is a kind of its own.
std::string kind_of_onnx_type(std::string_view onnx_type);

// What a layer calls the parameter that it reads at an input: "weight", "bias".
// Empty where the type has no parameter there, though the input may be
// constant.
std::string_view onnx_param_name(std::string_view onnx_type, int input);

// False for inputs that say how the op works (the limits of a Clip, the scales
// of a Resize): their values are not among its results.
bool is_onnx_data_input(std::string_view onnx_type, int input);

}  // namespace aimetpp::graph
