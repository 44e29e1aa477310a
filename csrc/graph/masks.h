// SPDX-License-Identifier: BSD-3-Clause
// Masks of attention scores: `scores + mask`, where the mask is 0 or a very low
// number, and what becomes of the low numbers until a softmax makes them 0.
//
// Adding a mask changes no score that counts, so it keeps the scores' grid and
// needs no quantizer; the mask itself lies on no grid. Where masked scores meet
// other values (`scores + (bias + mask)`), the result has a quantizer, which
// leaves the masked ones out: they count in no range and pass unchanged.
#pragma once

#include <cstdint>

#include "core/macros.h"
#include "graph/op_graph.h"

namespace aimetpp::graph {

// Looks at what is added to, or picked instead of, other values; `negated`: at
// what is subtracted from them. A number of -50 or less masks: its softmax is 0
// beside any score (e^-50 is 2e-22). Other values may be that low too, so
// beside them only numbers below -5000 do.
AIMETPP_API MaskFacts classify_mask(const float* values, std::int64_t size,
                                    bool negated = false);

// Sets Op::mask_slot, Tensor::is_mask and Tensor::masked_below from the facts
// at the input sites, on the ways to a softmax. An op that applies a mask
// becomes grid-preserving, and the scores its first input.
AIMETPP_API void find_masks(OpGraph& graph);

}  // namespace aimetpp::graph
