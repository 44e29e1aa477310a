// SPDX-License-Identifier: BSD-3-Clause
// The biases that integer hardware adds to sums of products, in steps of input
// scale x weight scale.
#pragma once

#include <vector>

#include "config/placement.h"
#include "core/macros.h"
#include "graph/op_graph.h"

namespace aimetpp::config {

struct IntegerBias {
  int op = graph::kNone;      // a convolution, transposed or not, or linear
  int site = graph::kNone;    // of the bias, a param
  int input = graph::kNone;   // quantizer of the input
  double factor = 1.0;        // the input lies on that one's grid times this
  int weight = graph::kNone;  // quantizer of the weight
};

// One for each op with a bias that no quantizer covers, whose input and weight
// both have a quantizer; in graph order.
AIMETPP_API std::vector<IntegerBias> integer_biases(const graph::OpGraph& graph,
                                                    const Placement& placement);

}  // namespace aimetpp::config
