// SPDX-License-Identifier: BSD-3-Clause
// Config x graph -> which sites have a quantizer, what it is like, and why.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "config/quant_config.h"
#include "core/macros.h"
#include "core/types.h"
#include "graph/op_graph.h"

namespace aimetpp::config {

// One quantizer to be made. Several sites share it where they must agree: the
// readers of one model input, the inputs and the output of a concatenation.
struct QuantizerSpec {
  Precision precision;
  bool symmetric = false;
  bool strict_symmetric = false;
  bool unsigned_symmetric = false;
  // Params only: one encoding for each index along this axis; kNone: per-tensor.
  int channel_axis = graph::kNone;
  std::optional<EncodingConstraints> constraints;
  graph::SiteKind kind = graph::SiteKind::output;  // param or activation kinds
  std::vector<int> sites;                          // site ids, ascending
};

// Why a site is on or off: which rule of which section said so, in the order in
// which they were applied.
struct RuleEffect {
  std::string section;  // "defaults", "params", "op_type", "supergroups", ...
  std::string rule;     // "supergroups[0] [Conv, Relu]"
  std::string effect;   // "off: not the last op"
};

struct Placement {
  std::vector<QuantizerSpec> quantizers;
  std::vector<int> quantizer_of_site;            // kNone: off
  std::vector<std::vector<RuleEffect>> rules;    // by site
  std::vector<std::vector<SupportedKernel>> kernels_of_op;  // empty: anything
};

struct PlacementDefaults {
  Precision activation;
  Precision param;
};

AIMETPP_API Placement place_quantizers(const graph::OpGraph& graph,
                                       const QuantConfig& config,
                                       const PlacementDefaults& defaults);

}  // namespace aimetpp::config
