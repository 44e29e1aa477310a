// SPDX-License-Identifier: BSD-3-Clause
// Requests taken apart: what each says of one input, output or parameter of one
// leaf, and which quantizers that concerns.
#pragma once

#include <cstdint>
#include <vector>

#include "core/types.h"
#include "mixed/quantizer_route.h"
#include "mixed/request.h"

namespace aimetpp::mixed {

enum class Aspect : std::uint8_t { input, output, param };

struct Claim {
  int request = graph::kNone;
  int entry = 0;  // index in Request::activations; 0 for a param
  int op = graph::kNone;
  Aspect aspect = Aspect::input;
  int slot = 0;  // index in Op::inputs, Op::outputs or Op::params
  Precision precision;
  int route = graph::kNone;  // index in Claims::routes
};

// What a request said of some ops that later ones speak of too, and otherwise.
struct Replacement {
  static constexpr int kShownOps = 8;  // of more, the first claims are kept

  int num_ops = 0;
  int last_op = graph::kNone;
  std::vector<int> later;     // requests, ascending
  std::vector<Claim> claims;  // in graph order
  std::vector<int> by;        // for each of them, the later request
};

struct Claims {
  // Those that no later request on the same aspect of the same leaf replaced.
  // In the order of the requests; within one: leaves in graph order, inputs
  // before outputs before params.
  std::vector<Claim> standing;
  std::vector<QuantizerRoute> routes;  // one for each aspect spoken of
  std::vector<Replacement> replaced;   // by request
  // By request and entry of its activations: some quantizer was found.
  std::vector<std::vector<bool>> finds_quantizer;

  [[nodiscard]] const QuantizerRoute& route_of(const Claim& claim) const {
    return routes[claim.route];
  }
};

// Throws a value error for an op index out of range, or for `activations` of a
// length that does not fit what the request speaks of.
Claims claims_of_requests(const graph::OpGraph& graph,
                          const config::Placement& placement,
                          const std::vector<Request>& requests);

}  // namespace aimetpp::mixed
