// SPDX-License-Identifier: BSD-3-Clause
// Quantizer groups: quantizers that change precision together, because they
// meet in one kernel: an activation and the weights of the ops that read it.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "config/placement.h"
#include "core/macros.h"
#include "core/types.h"
#include "graph/op_graph.h"

namespace aimetpp::groups {

struct QuantizerGroup {
  // Indices in Placement::quantizers, ascending. One activation quantizer (tied
  // sites are already one), or none: the params of an op whose input has no
  // quantizer, such as the second convolution of a supergroup. Several only
  // where a reused module reads them with one weight and has supported kernels,
  // which then tie their precisions.
  std::vector<int> activation_quantizers;
  std::vector<int> param_quantizers;
  // Ops whose supported kernels restrict the group, ascending: those that the
  // params belong to, and the weightless ones that put out the activation.
  std::vector<int> ops;
  std::string
      name;  // of its first site, e.g. "conv1.input.0" or "layer1.0/add_0"
};

// Every quantizer is in exactly one group; groups are in graph order. A param
// joins the activation that its op reads at input 0, through grid-preserving
// ops; where it belongs to several calls, the first of them that reads a
// quantized activation.
AIMETPP_API std::vector<QuantizerGroup> build_groups(
    const graph::OpGraph& graph, const config::Placement& placement);

// The indices of `candidates` that every op of the group has a kernel for, in
// the caller's order. An op whose weight is in the group restricts pairs of
// (the activation it reads, weight), or the weight alone where that activation
// is not quantized; any other op restricts the activation that it puts out. A
// kernel without a param takes every param. `pinned` quantizers of the group,
// by index, keep their precision, so that it counts instead of the candidate's.
// With use_all_candidates everything is allowed. Throws a value error that
// names the op, its kernels and the candidates where nothing is left.
AIMETPP_API std::vector<int> supported_candidates(
    const QuantizerGroup& group, const graph::OpGraph& graph,
    const config::Placement& placement,
    const std::vector<Candidate>& candidates, bool use_all_candidates,
    const std::map<int, Precision>& pinned = {});

}  // namespace aimetpp::groups
