// SPDX-License-Identifier: BSD-3-Clause
// Quantizer groups: quantizers that change precision together, because they
// meet in one kernel: an activation and the weights of the ops that read it.
#pragma once

#include <string>
#include <vector>

#include "config/placement.h"
#include "core/macros.h"
#include "core/types.h"
#include "graph/op_graph.h"

namespace aimetpp::groups {

struct QuantizerGroup {
  // Indices in Placement::quantizers, ascending. At most one activation
  // quantizer (tied sites are already one); params of all ops reading it.
  std::vector<int> activation_quantizers;
  std::vector<int> param_quantizers;
  // Ops whose supported kernels restrict the group: readers of the activation
  // and its producer.
  std::vector<int> ops;
  std::string name;  // of its first site, e.g. "conv1.input.0" or "layer1.0/add_0"
};

// Every quantizer is in exactly one group; groups are in graph order.
AIMETPP_API std::vector<QuantizerGroup> build_groups(
    const graph::OpGraph& graph, const config::Placement& placement);

// The indices of `candidates` that every op of the group has a kernel for, in
// the caller's order. An op with params restricts (activation, param) pairs, an
// op without restricts the activation that it puts out. With
// use_all_candidates everything is allowed. Throws a value error that names the
// op, its kernels and the candidates where nothing is left.
AIMETPP_API std::vector<int> supported_candidates(
    const QuantizerGroup& group, const graph::OpGraph& graph,
    const config::Placement& placement,
    const std::vector<Candidate>& candidates, bool use_all_candidates);

}  // namespace aimetpp::groups
