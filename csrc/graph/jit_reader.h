// SPDX-License-Identifier: BSD-3-Clause
// TorchScript IR -> OpGraph. jit_reader.cpp is the only file that knows the IR.
#pragma once

#include <typeinfo>
#include <vector>

#include "core/macros.h"
#include "graph/op_graph.h"

namespace torch::jit {
struct Graph;
}

namespace aimetpp::graph {

// `ir` is a traced, flat graph in which every site's tensor went through the
// marker `aimetpp::site(Tensor x, int id) -> Tensor`, id being an index in
// `sites`. Its first `num_inputs` inputs are the model's (flattened) tensor
// inputs, the others its parameters and buffers.
// Throws a value error for a marker whose id is not in `sites`, and a runtime
// error for IR that cannot be read, with its source line.
AIMETPP_API OpGraph read_jit_graph(const torch::jit::Graph& ir,
                                   std::vector<Call> calls,
                                   std::vector<Site> sites, int num_inputs);

// For the Python module, which receives a torch._C.Graph without including the
// IR's headers.
AIMETPP_API const std::type_info& jit_graph_type();

}  // namespace aimetpp::graph
