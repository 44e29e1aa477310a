// SPDX-License-Identifier: BSD-3-Clause
#include "mixed/ineffective.h"

#include <algorithm>
#include <iterator>
#include <set>
#include <string>
#include <utility>

#include "core/text.h"

namespace aimetpp::mixed {
namespace {

using graph::kNone;

std::string last_rule(const config::Placement& placement, int site) {
  if (site == kNone || placement.rules[site].empty()) return "";
  const config::RuleEffect& last = placement.rules[site].back();
  return concat(" (", last.section, ": ", last.effect, ")");
}

// Empty where at least one covered leaf has a quantizer for the parameter.
std::string why_param_is_ineffective(const graph::OpGraph& graph,
                                     const config::Placement& placement,
                                     const Request& request,
                                     const std::string& name) {
  std::set<std::string> known;
  std::string unquantized;
  for (const int op : request.ops) {
    for (const graph::Param& param : graph.ops[op].params) {
      known.insert(param.name);
      if (param.name != name) continue;
      if (placement.quantizer_at(param.site) != kNone) return "";
      if (unquantized.empty()) {
        unquantized = concat("parameter \"", name, "\" has no quantizer",
                             last_rule(placement, param.site));
      }
    }
  }
  if (!unquantized.empty()) return unquantized;
  return concat("no parameter \"", name, "\"; ",
                known.empty() ? "there are none" : "there is " + join(known));
}

}  // namespace

std::vector<ReportLine> find_ineffective(const graph::OpGraph& graph,
                                         const config::Placement& placement,
                                         const std::vector<Request>& requests,
                                         const Claims& claims) {
  std::vector<ReportLine> lines;
  const auto add = [&](int index, const std::string& why, Facts facts) {
    ReportLine line{index, requests[index].subject, why};
    line.kind = "request";
    line.facts = {{"reason", "no effect"}, {"subject", line.subject}};
    std::ranges::move(facts, std::back_inserter(line.facts));
    lines.push_back(std::move(line));
  };
  for (int index = 0; index < static_cast<int>(requests.size()); ++index) {
    const Request& request = requests[index];
    const bool is_model_request =
        request.target == RequestTarget::model_input ||
        request.target == RequestTarget::model_output;
    if (!is_model_request && request.ops.empty()) {
      add(index,
          "matches no layer that computes anything in the traced forward", {});
      continue;
    }
    for (int entry = 0; entry < static_cast<int>(request.activations.size());
         ++entry) {
      if (!request.activations[entry] || claims.finds_quantizer[index][entry]) {
        continue;
      }
      const std::string where = request.activations.size() > 1
                                    ? concat("entry ", entry, " of activation")
                                    : std::string("activation");
      const std::string precision = request.activations[entry]->name();
      add(index, concat(where, " (", precision, ") finds no quantizer"),
          {{"activation", entry}, {"precision", precision}});
    }
    for (const auto& [name, precision] : request.params) {
      const std::string why =
          why_param_is_ineffective(graph, placement, request, name);
      if (why.empty()) continue;
      add(index, why, {{"param", name}, {"precision", precision.name()}});
    }
  }
  return lines;
}

}  // namespace aimetpp::mixed
