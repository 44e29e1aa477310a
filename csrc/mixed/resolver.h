// SPDX-License-Identifier: BSD-3-Clause
// Manual mixed precision: what a person asked of layers -> what each quantizer
// becomes.
#pragma once

#include <vector>

#include "config/placement.h"
#include "core/macros.h"
#include "core/types.h"
#include "graph/op_graph.h"
#include "mixed/claims.h"
#include "mixed/report_line.h"
#include "mixed/request.h"

namespace aimetpp::mixed {

struct Change {
  int quantizer = graph::kNone;
  Precision before;
  Precision after;
  int request = graph::kNone;  // the request that decided
};

// A quantizer that was claimed and the claim that decides it.
struct Verdict {
  int quantizer = graph::kNone;
  int winner = graph::kNone;   // index in Claims::standing
  std::vector<int> claimants;  // indices there too, the winner included
};

struct Resolution {
  std::vector<Precision> precisions;  // one per quantizer, after all requests
  std::vector<Change> changes;
  std::vector<int> reached;  // quantizers that a request decides
  double bit_ops_before = 0, bit_ops_after = 0;  // per sample
  // What a report is written from (mixed/resolution_report.h).
  std::vector<Precision> before;  // one per quantizer
  Claims claims;
  std::vector<Verdict> verdicts;     // ascending quantizers
  std::vector<ReportLine> problems;  // not strict: what would be an error
};

// `current` holds each quantizer's precision now. Semantics: per leaf and per
// aspect (each input, each output, each param) the latest request that speaks
// of it wins, whichever kind it is; a model input or output request speaks of
// the leaves that read or make that tensor. An aspect is realized at the
// quantizer that decides the tensor's grid (mixed/quantizer_route.h). Where
// leaves differ about one quantizer the latest request wins; in strict mode it
// is a runtime error naming both if neither came through a container or a type.
// In strict mode a request that can change nothing (no match, no such param, no
// quantizer) is a value error, and an op left without a supported kernel a
// runtime error; otherwise each is a report line. Of the ops with kernels,
// those that a request reached are checked: activation of input 0 with the
// weight, or for an op without weight the activation that it puts out. Throws a
// value error for `activations` of a wrong length.
AIMETPP_API Resolution resolve_requests(const graph::OpGraph& graph,
                                        const config::Placement& placement,
                                        const std::vector<Precision>& current,
                                        const std::vector<Request>& requests,
                                        bool strict);

}  // namespace aimetpp::mixed
