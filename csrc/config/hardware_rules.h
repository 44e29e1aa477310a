// SPDX-License-Identifier: BSD-3-Clause
// What `hw_version` changes in a placement. Internal to config/.
#pragma once

#include <string>

#include "config/placement.h"
#include "graph/op_graph.h"

namespace aimetpp::config {

// How many of its inputs, from the first one, an op puts on one grid with its
// output: all that a concatenation joins, and, with any hw_version, the image
// that is resized; 0 for other ops.
std::size_t num_tied_inputs(const graph::Op& op, const std::string& hw_version);

// With a version of Hexagon's ("V73"):
//  - V66, V68 and V69 multiply two activations with the second one in 8 bits,
//    symmetric;
//  - later ones take a second one of 16 bits only symmetric, and then the first
//    one in 16 bits too; an embedding's table and the params of a group
//    normalization have their output's precision and symmetry.
// Other texts bring none of these. Changes the quantizers, and logs at their
// sites why.
void apply_hardware_rules(const graph::OpGraph& graph,
                          const std::string& hw_version, Placement& placement);

}  // namespace aimetpp::config
