// SPDX-License-Identifier: BSD-3-Clause
// Layers between which a factor per channel can move without changing what the
// model computes (Nagel et al. 2019, "Data-free quantization through weight
// equalization and bias correction", section 4.1).
#pragma once

#include <vector>

#include "core/macros.h"
#include "graph/op_graph.h"

namespace aimetpp::fold {

struct EqualizableChain {
  // Op indices, two or more. Those that are neither first nor last are
  // depthwise: a factor of their input channel is one of their output channel.
  std::vector<int> layers;
  // between[i]: the ops that the values pass from layers[i] to layers[i + 1].
  std::vector<std::vector<int>> between;
};

enum class Relu6 : std::uint8_t {
  stops,    // it clips at 6: a factor does not pass
  replaced  // the caller replaces ReLU6 modules by ReLU, which a factor passes;
            // only those all of whose calls are inside chains
};

// `transparent`: ops, such as batch norms that fold left without effect, that a
// factor passes besides. `excluded`: layers that are to stay as they are.
//
// In graph order; a layer is the last of one chain and the first of another at
// most. Only layers that are called once and whose parameters nothing else
// reads; between them only what a positive factor per channel passes: ReLU and
// its leaky kin, pooling, resizing, Dropout.
AIMETPP_API std::vector<EqualizableChain> equalizable_chains(
    const graph::OpGraph& graph, Relu6 relu6,
    const std::vector<int>& transparent = {},
    const std::vector<int>& excluded = {});

}  // namespace aimetpp::fold
