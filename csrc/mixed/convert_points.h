// SPDX-License-Identifier: BSD-3-Clause
// Where convert ops stand: tensors whose readers compute in another precision.
//
// An op with quantized params computes in the precision of the activation that
// it multiplies with them (its input 0), any other op in that of its output; a
// member of a supergroup, in that of the supergroup's output. These are the
// precisions that `supported_kernels` restrict. What an op reads in another
// precision is converted for it, and so is what it puts out. Convert ops of one
// tensor to one precision are one op, which all readers share. Data movement
// keeps the precision of what it moves.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "config/placement.h"
#include "core/macros.h"
#include "core/types.h"
#include "graph/op_graph.h"

namespace aimetpp::mixed {

struct ConvertPoint {
  std::string tensor;         // name of the op or model input that it is from
  std::int64_t elements = 0;  // of one sample
  int from = graph::kNone;    // quantizer in whose precision the tensor is
  // Quantizers in whose precisions its readers compute: ascending, without
  // `from`.
  std::vector<int> to;
};

// In graph order; tensors that nothing quantizes are not converted.
AIMETPP_API std::vector<ConvertPoint> find_convert_points(
    const graph::OpGraph& graph, const config::Placement& placement);

// Cost of converting one element, by (from, to).
using ConvertTable = std::map<std::pair<Precision, Precision>, double>;

// What one convert op costs. With an empty table: the bytes that it reads and
// writes. Throws a value error for a pair that a table does not have, or for a
// cost that is negative or no number.
AIMETPP_API double convert_op_cost(const ConvertPoint& point, Precision from,
                                   Precision to, const ConvertTable& table);

// Of all convert ops; `precisions` holds one entry per quantizer.
AIMETPP_API double convert_cost(const std::vector<ConvertPoint>& points,
                                const std::vector<Precision>& precisions,
                                const ConvertTable& table);

}  // namespace aimetpp::mixed
