// SPDX-License-Identifier: BSD-3-Clause
// How many samples the traced example holds. Internal to graph/.
#pragma once

#include <cstdint>

#include "graph/flat_ir.h"

namespace aimetpp::graph {

// The first dimension of the first model input; the second where an LSTM, a GRU
// or an RNN that is not `batch_first` reads that input, directly or through
// ops that keep its first two dimensions in place. 1 where that dimension is
// unknown.
std::int64_t batch_size(const FlatIr& ir);

}  // namespace aimetpp::graph
