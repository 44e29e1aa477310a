// SPDX-License-Identifier: BSD-3-Clause
// Multiply-accumulates from traced shapes. Internal to graph/.
#pragma once

#include <cstdint>
#include <optional>

#include "graph/flat_ir.h"

namespace aimetpp::graph {

// The product that a node computes.
struct MacCount {
  std::int64_t macs = 0;  // of the whole traced batch
  int lhs = kNone;        // value indices of the two factors
  int rhs = kNone;
};

// nullopt for a node that multiplies by no weight and no other activation; an
// element-wise product is none. Throws a runtime error where the trace does not
// have the shapes.
//
//   conv             output elements x weight elements per output channel
//   conv_transpose   input elements x weight elements per input channel
//   linear, matmul   output elements x length of the contracted dimension
//   einsum           product of the sizes of all distinct indices
//   attention        query rows x key rows x (query width + value width)
//   lstm, gru, rnn   input rows x elements of all weight matrices
std::optional<MacCount> count_macs(const FlatIr& ir, const IrNode& node);

}  // namespace aimetpp::graph
