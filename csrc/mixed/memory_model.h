// SPDX-License-Identifier: BSD-3-Clause
// Bytes that a setting of the quantizers takes: of the parameters, and of the
// activations that go to and from memory.
#pragma once

#include <cstdint>
#include <vector>

#include "config/placement.h"
#include "core/macros.h"
#include "core/types.h"
#include "graph/op_graph.h"

namespace aimetpp::mixed {

struct MemoryTerm {
  std::int64_t elements = 0;
  int quantizer = graph::kNone;  // kNone: 32 bits
};

struct AIMETPP_API MemoryModel {
  std::vector<MemoryTerm> weights;  // each parameter of an op once
  // Of one sample: a quantized tensor is written once, and read by each op that
  // computes with it. What stays inside a supergroup, or is not quantized, does
  // not count.
  std::vector<MemoryTerm> activations;

  // `precisions` holds one entry per quantizer.
  [[nodiscard]] double weight_bytes(
      const std::vector<Precision>& precisions) const;
  [[nodiscard]] double activation_bytes(
      const std::vector<Precision>& precisions) const;
};

AIMETPP_API MemoryModel build_memory_model(const graph::OpGraph& graph,
                                           const config::Placement& placement);

}  // namespace aimetpp::mixed
