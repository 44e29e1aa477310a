// SPDX-License-Identifier: BSD-3-Clause
// What to call requests, inputs and outputs, and quantizers in a message.
#pragma once

#include <string>
#include <vector>

#include "mixed/claims.h"

namespace aimetpp::mixed {

// `request 2 (conv1, "demo.py:14")`, counted from one as the user counts.
std::string describe_request(const std::vector<Request>& requests, int request);

// As the user counts.
std::vector<int> numbers_from_one(std::vector<int> requests);

// "conv1 input 0", "conv1 output", "conv1.weight".
std::string describe_aspect(const graph::OpGraph& graph, const Claim& claim);

// Dotted name of the leaf, or of the module that calls a functional op.
std::string module_of_op(const graph::OpGraph& graph, int op);

// The sites of a quantizer: "relu1", or "conv1, conv2, cat_0" where tied.
std::string describe_quantizer(const graph::OpGraph& graph,
                               const config::Placement& placement,
                               int quantizer);

// Its first site: what a program calls it.
std::string name_of_quantizer(const graph::OpGraph& graph,
                              const config::Placement& placement,
                              int quantizer);

}  // namespace aimetpp::mixed
