// SPDX-License-Identifier: BSD-3-Clause
#include "mixed/resolver.h"

#include <algorithm>
#include <iterator>
#include <set>
#include <string>
#include <tuple>
#include <utility>

#include "core/error.h"
#include "core/text.h"
#include "mixed/cost_model.h"
#include "mixed/describe.h"
#include "mixed/ineffective.h"
#include "mixed/kernel_check.h"

namespace aimetpp::mixed {
namespace {

using graph::kNone;

bool is_leaf_level(const Request& request) {
  return request.target != RequestTarget::container &&
         request.target != RequestTarget::type;
}

// Calls of one module are one leaf.
bool is_same_leaf(const graph::OpGraph& graph, int lhs, int rhs) {
  if (lhs == rhs) return true;
  const int lhs_call = graph.ops[lhs].call;
  const int rhs_call = graph.ops[rhs].call;
  if (lhs_call == kNone || rhs_call == kNone) return false;
  const graph::Call& a = graph.calls[lhs_call];
  const graph::Call& b = graph.calls[rhs_call];
  return !a.functional && !b.functional && a.module == b.module;
}

// A request for a model input speaks of all that read the tensor, so a later
// one on a reader speaks of the same. In the other order it replaces that one.
bool speak_of_one_model_input(const graph::OpGraph& graph,
                              const std::vector<Request>& requests,
                              const Claim& earlier, const Claim& later) {
  const RequestTarget asked = requests[earlier.request].target;
  if (asked != RequestTarget::model_input &&
      asked != RequestTarget::model_output) {
    return false;
  }
  if (earlier.aspect != Aspect::input || later.aspect != Aspect::input) {
    return false;
  }
  const auto tensor_of = [&](const Claim& claim) {
    return tensor_of_leaf(graph, graph.ops[claim.op].inputs[claim.slot]);
  };
  return tensor_of(earlier) == tensor_of(later);
}

// The latest request wins; within one request an output's claim is stronger
// than a reader's.
std::vector<Verdict> find_verdicts(const Claims& all,
                                   std::size_t num_quantizers) {
  const std::vector<Claim>& claims = all.standing;
  std::vector<Verdict> by_quantizer(num_quantizers);
  for (int index = 0; index < static_cast<int>(claims.size()); ++index) {
    for (const int quantizer : all.route_of(claims[index]).quantizers) {
      by_quantizer[quantizer].quantizer = quantizer;
      by_quantizer[quantizer].claimants.push_back(index);
    }
  }
  const auto weaker = [&](int lhs, int rhs) {
    const auto rank = [&](int index) {
      const Claim& claim = claims[index];
      return std::tuple(claim.request, claim.aspect, claim.op, claim.slot,
                        index);
    };
    return rank(lhs) < rank(rhs);
  };
  std::vector<Verdict> verdicts;
  for (Verdict& verdict : by_quantizer) {
    if (verdict.claimants.empty()) continue;
    std::sort(verdict.claimants.begin(), verdict.claimants.end(), weaker);
    verdict.winner = verdict.claimants.back();
    verdicts.push_back(std::move(verdict));
  }
  return verdicts;
}

bool conflicts(const graph::OpGraph& graph,
               const std::vector<Request>& requests, const Claim& earlier,
               const Claim& later) {
  if (earlier.precision == later.precision) return false;
  // A list that asks one tensor for two precisions, whomever it was given to.
  if (earlier.request == later.request && earlier.op == later.op) return true;
  if (!is_leaf_level(requests[earlier.request]) ||
      !is_leaf_level(requests[later.request])) {
    return false;
  }
  if (earlier.request == later.request) return true;
  return !is_same_leaf(graph, earlier.op, later.op) &&
         !speak_of_one_model_input(graph, requests, earlier, later);
}

std::string describe_conflict(const graph::OpGraph& graph,
                              const config::Placement& placement,
                              const std::vector<Request>& requests,
                              int quantizer, const Claim& earlier,
                              const Claim& later) {
  const std::string who =
      earlier.request == later.request
          ? describe_request(requests, earlier.request) + " asks"
          : describe_request(requests, earlier.request) + " and " +
                describe_request(requests, later.request) + " ask";
  return concat(who, " for ", earlier.precision.name(), " (",
                describe_aspect(graph, earlier), ") and ",
                later.precision.name(), " (", describe_aspect(graph, later),
                "), but both are decided by the quantizer ",
                describe_quantizer(graph, placement, quantizer));
}

void check_conflicts(const graph::OpGraph& graph,
                     const config::Placement& placement,
                     const std::vector<Request>& requests,
                     const std::vector<Claim>& claims,
                     const std::vector<Verdict>& verdicts) {
  std::string found;
  for (const Verdict& verdict : verdicts) {
    const std::vector<int>& claimants = verdict.claimants;
    bool reported = false;
    for (std::size_t later = 1; later < claimants.size() && !reported;
         ++later) {
      for (std::size_t earlier = 0; earlier < later && !reported; ++earlier) {
        const Claim& first = claims[claimants[earlier]];
        const Claim& second = claims[claimants[later]];
        if (!conflicts(graph, requests, first, second)) continue;
        found += "\n  " + describe_conflict(graph, placement, requests,
                                            verdict.quantizer, first, second);
        reported = true;
      }
    }
  }
  if (found.empty()) return;
  raise_runtime_error("conflicting precision requests:", found,
                      "\nask for one precision there, or apply with "
                      "strict=False, where the latest request wins");
}

std::string join_details(const std::vector<ReportLine>& lines,
                         const std::vector<Request>& requests) {
  std::string text;
  for (const ReportLine& line : lines) {
    text += "\n  " +
            (line.request == kNone ? line.subject
                                   : describe_request(requests, line.request)) +
            ": " + line.detail;
  }
  return text;
}

// The winners' precisions.
void decide(Resolution& resolution) {
  resolution.precisions = resolution.before;
  for (const Verdict& verdict : resolution.verdicts) {
    const Claim& winner = resolution.claims.standing[verdict.winner];
    const Precision before = resolution.before[verdict.quantizer];
    resolution.reached.push_back(verdict.quantizer);
    resolution.precisions[verdict.quantizer] = winner.precision;
    if (before == winner.precision) continue;
    resolution.changes.push_back(
        {verdict.quantizer, before, winner.precision, winner.request});
  }
}

// Ops that a request reached and that are left without a supported kernel.
std::vector<ReportLine> find_unsupported(const graph::OpGraph& graph,
                                         const config::Placement& placement,
                                         const std::vector<Request>& requests,
                                         const Resolution& resolution) {
  std::vector<int> decided_by(resolution.precisions.size(), kNone);
  for (const Verdict& verdict : resolution.verdicts) {
    decided_by[verdict.quantizer] =
        resolution.claims.standing[verdict.winner].request;
  }
  std::vector<ReportLine> lines;
  for (UnsupportedOp& found :
       find_unsupported_ops(graph, placement, resolution.precisions)) {
    std::set<int> by;
    for (const int quantizer : found.quantizers) {
      if (decided_by[quantizer] != kNone) by.insert(decided_by[quantizer]);
    }
    if (by.empty()) continue;
    const graph::Op& op = graph.ops[found.op];
    ReportLine line{kNone, op.name, std::move(found.problem)};
    line.gist = line.detail;
    line.detail += "; asked by " + join(by, [&](int request) {
                     return describe_request(requests, request);
                   });
    line.module = module_of_op(graph, found.op);
    line.kind = op.kind;
    line.facts = {{"reason", "no supported kernel"},
                  {"layer", op.name},
                  {"module", line.module},
                  {"by", numbers_from_one({by.begin(), by.end()})}};
    lines.push_back(std::move(line));
  }
  return lines;
}

}  // namespace

Resolution resolve_requests(const graph::OpGraph& graph,
                            const config::Placement& placement,
                            const std::vector<Precision>& current,
                            const std::vector<Request>& requests, bool strict) {
  if (current.size() != placement.quantizers.size()) {
    raise_value_error("current must hold ", placement.quantizers.size(),
                      " precisions, one per quantizer, got ", current.size());
  }
  Resolution resolution;
  resolution.before = current;
  resolution.claims = claims_of_requests(graph, placement, requests);
  const Claims& claims = resolution.claims;
  resolution.problems = find_ineffective(graph, placement, requests, claims);
  if (strict && !resolution.problems.empty()) {
    raise_value_error("requests that can change nothing:",
                      join_details(resolution.problems, requests));
  }
  resolution.verdicts = find_verdicts(claims, placement.quantizers.size());
  if (strict) {
    check_conflicts(graph, placement, requests, claims.standing,
                    resolution.verdicts);
  }
  decide(resolution);
  std::vector<ReportLine> unsupported =
      find_unsupported(graph, placement, requests, resolution);
  if (strict && !unsupported.empty()) {
    raise_runtime_error("requests leave layers without a supported kernel:",
                        join_details(unsupported, requests));
  }
  std::ranges::move(unsupported, std::back_inserter(resolution.problems));
  const CostModel cost_model = build_cost_model(graph, placement);
  resolution.bit_ops_before = cost_model.bit_ops(current);
  resolution.bit_ops_after = cost_model.bit_ops(resolution.precisions);
  return resolution;
}

}  // namespace aimetpp::mixed
