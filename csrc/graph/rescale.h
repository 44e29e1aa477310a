// SPDX-License-Identifier: BSD-3-Clause
// Ops that only multiply by a number. Internal to graph/.
#pragma once

#include <optional>
#include <vector>

#include "graph/flat_ir.h"

namespace aimetpp::graph {

// The factor by which a call multiplies its first input, where that is all that
// `nodes`, the inside of the call, compute: a product with, or a quotient by,
// one positive finite number that the trace holds as a constant. nullopt
// otherwise.
std::optional<double> constant_rescale(const FlatIr& ir,
                                       const std::vector<int>& nodes);

}  // namespace aimetpp::graph
