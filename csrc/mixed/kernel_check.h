// SPDX-License-Identifier: BSD-3-Clause
// Ops that stand at precisions for which the config lists no kernel.
#pragma once

#include <string>
#include <vector>

#include "config/placement.h"
#include "core/macros.h"
#include "core/types.h"
#include "graph/op_graph.h"

namespace aimetpp::mixed {

struct UnsupportedOp {
  int op = graph::kNone;
  std::vector<int> quantizers;  // that decide its precisions: one or two
  std::string problem;  // "no supported kernel for int8 output; supported: ..."
};

// In graph order. An op with a weight needs a kernel for the activation that it
// reads at input 0 with that weight, a weightless op one for the activation
// that it puts out. What is not quantized fits every kernel. `precisions` has
// one entry per quantizer of the placement.
AIMETPP_API std::vector<UnsupportedOp> find_unsupported_ops(
    const graph::OpGraph& graph, const config::Placement& placement,
    const std::vector<Precision>& precisions);

}  // namespace aimetpp::mixed
