// SPDX-License-Identifier: BSD-3-Clause
// Manual mixed precision: what a person asked of layers -> what each quantizer
// becomes, and a report of how.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "config/placement.h"
#include "core/macros.h"
#include "core/types.h"
#include "graph/op_graph.h"
#include "mixed/report_line.h"

namespace aimetpp::mixed {

enum class RequestTarget : std::uint8_t {
  leaf,         // set_precision(module) of a leaf, or of a functional op's site
  container,    // set_precision(module) of a module with leaves inside
  type,         // set_precision(module type)
  model_input,  // set_model_input_precision
  model_output,  // set_model_output_precision
};

// An input of an op.
struct Port {
  int op = graph::kNone;
  int slot = 0;
};

// One API call, already expanded by the front to the calls (leaves) it covers.
struct Request {
  RequestTarget target = RequestTarget::leaf;
  std::string subject;  // as asked: "conv1", "type Conv2d", "model input"
  std::string source;   // "file.py:line" of the user's call
  std::vector<int>
      ops;  // op indices of the leaves covered; empty: matches none
  // Per input site of the leaf (one entry: all inputs), or per model
  // input/output; an empty optional is the user's None. Empty vector:
  // activations stay.
  std::vector<std::optional<Precision>> activations;
  std::map<std::string, Precision> params;  // by parameter name
  // Where a layer is several ops (an attention): for each entry of
  // `activations` the inputs that it speaks of, and the ops whose outputs are
  // the layer's. Empty: the entries are the inputs of each op.
  std::vector<std::vector<Port>> ports{};
  std::vector<int> results{};
};

struct Change {
  int quantizer = graph::kNone;
  Precision before;
  Precision after;
  int request = graph::kNone;  // the request that decided
};

struct Resolution {
  std::vector<Precision> precisions;  // one per quantizer, after all requests
  std::vector<Change> changes;
  std::vector<int> reached;  // quantizers that a request decides
  std::vector<ReportLine> requests, inferred, propagated, realized, overruled;
  std::vector<ReportLine> unchanged;  // quantizers that no request reached
  double bit_ops_before = 0, bit_ops_after = 0;  // per sample
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
