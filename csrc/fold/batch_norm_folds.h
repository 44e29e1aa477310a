// SPDX-License-Identifier: BSD-3-Clause
// The batch norms that a layer beside them can take over, found in the graph.
#pragma once

#include <utility>
#include <vector>

#include "core/macros.h"
#include "fold/op_chain.h"
#include "graph/op_graph.h"

namespace aimetpp::fold {

// The batch norms that fold into the Conv, ConvTranspose or Gemm before them:
// pairs of op indices (that op, the batch norm), in graph order. The batch norm
// must be the only reader, normalize the channels that the op puts out, and,
// where either module is called several times, follow or precede the same other
// module in every call. Parameters that other modules read keep a pair out.
AIMETPP_API std::vector<std::pair<int, int>> foldable_batch_norms(
    const graph::OpGraph& graph);

// The other batch norms that fold into the Conv or Gemm behind them, if that
// pads its input with nothing or with values of the input: pairs (the batch
// norm, that op), under the same conditions.
AIMETPP_API std::vector<std::pair<int, int>> forward_foldable_batch_norms(
    const graph::OpGraph& graph);

// A Conv or Gemm whose input comes from a batch norm, directly or through a
// ReLU, so that the mean of that input is known without data.
struct NormalizedInput {
  int layer = graph::kNone;       // op index
  int batch_norm = graph::kNone;  // op index
  Activation activation = Activation::none;
};

AIMETPP_API std::vector<NormalizedInput> normalized_inputs(
    const graph::OpGraph& graph);

}  // namespace aimetpp::fold
