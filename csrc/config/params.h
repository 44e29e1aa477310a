// SPDX-License-Identifier: BSD-3-Clause
// What a parameter is to the op that reads it.
#pragma once

#include <string_view>

#include "core/macros.h"
#include "graph/op_graph.h"

namespace aimetpp::config {

// "bias", "bias_ih_l0", "in_proj_bias".
bool is_bias(std::string_view param);

// The axis of a param's output channels, along which it has one encoding each
// where the config asks for that: the last of a matrix product's right operand
// (of its left one, the last but one), axis 1 of a transposed convolution, else
// axis 0. kNone for biases and other vectors, which are quantized per tensor,
// but for the slopes of PRelu.
int channel_axis_of(const graph::OpGraph& graph, const graph::Op& op,
                    const graph::Param& param);

// The index in `op.params` of the weight that the op applies to its input 0;
// kNone for a weightless op. An addition or product of two tensors is
// weightless, also where one of them is a parameter: hardware treats it like
// any other.
AIMETPP_API int weight_of(const graph::OpGraph& graph, const graph::Op& op);

}  // namespace aimetpp::config
