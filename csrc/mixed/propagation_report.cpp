// SPDX-License-Identifier: BSD-3-Clause
#include "mixed/propagation_report.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "core/text.h"

namespace aimetpp::mixed {
namespace {

using graph::kNone;

class PropagationWriter {
 public:
  explicit PropagationWriter(const ReportSubject& subject)
      : subject_(subject) {}

  std::vector<PlacedLine> run() {
    for (const Claim& claim : subject_.resolution.claims.standing)
      add_route(claim);
    const std::map<int, std::vector<int>> readers = readers_of_quantizers();
    for (const Verdict& verdict : subject_.resolution.verdicts) {
      const auto found = readers.find(verdict.quantizer);
      add_bystanders(
          verdict, found == readers.end() ? std::vector<int>() : found->second);
    }
    return std::move(lines_);
  }

 private:
  [[nodiscard]] const Claim& standing(int index) const {
    return subject_.resolution.claims.standing[index];
  }

  // Nothing to say where the claim is realized at the leaf's own site, or the
  // request covers the leaf where it is.
  void add_route(const Claim& claim) {
    const QuantizerRoute& route = subject_.resolution.claims.route_of(claim);
    const std::string precision = claim.precision.name();
    if (route.quantizers.empty()) {
      lines_.push_back(line_of_aspect(
          subject_, claim,
          precision + (route.fused
                           ? ": inside its supergroup, nothing to quantize"
                           : ": no quantizer there")));
      Facts& facts = lines_.back().line.facts;
      facts.emplace_back("what", route.fused ? "fused" : "no quantizer");
      facts.emplace_back("precision", precision);
      return;
    }
    if (route.path.empty() || is_asked_there(claim)) return;
    Names names, sites;
    for (const int quantizer : route.quantizers) {
      names.push_back(
          name_of_quantizer(subject_.graph, subject_.placement, quantizer));
      sites.push_back(
          describe_quantizer(subject_.graph, subject_.placement, quantizer));
    }
    Names through;
    for (std::size_t step = 0; step + 1 < route.path.size(); ++step) {
      through.push_back(subject_.graph.ops[route.path[step]].name);
    }
    lines_.push_back(line_of_aspect(
        subject_, claim,
        concat(precision, " -> ", join(sites),
               through.empty() ? "" : ", through ", join(through))));
    ReportLine& line = lines_.back().line;
    line.gist = concat(precision, " -> a quantizer ",
                       route.path.back() < claim.op ? "upstream" : "downstream",
                       through.empty() ? "" : ", through other ops");
    line.facts.emplace_back("what", "decided elsewhere");
    line.facts.emplace_back("precision", precision);
    line.facts.emplace_back("quantizers", names);
    line.facts.emplace_back("path", through);
  }

  // The same request asks it of the quantizer's own leaf too.
  [[nodiscard]] bool is_asked_there(const Claim& claim) const {
    const Claims& claims = subject_.resolution.claims;
    return std::ranges::all_of(
        claims.route_of(claim).quantizers, [&](int quantizer) {
          const auto found = std::ranges::lower_bound(
              subject_.resolution.verdicts, quantizer, {}, &Verdict::quantizer);
          return std::ranges::any_of(found->claimants, [&](int index) {
            const Claim& other = standing(index);
            return other.request == claim.request &&
                   other.precision == claim.precision &&
                   claims.route_of(other).path.empty();
          });
        });
  }

  [[nodiscard]] std::map<int, std::vector<int>> readers_of_quantizers() const {
    const graph::OpGraph& graph = subject_.graph;
    std::map<int, std::vector<int>> readers;
    for (int op = 0; op < static_cast<int>(graph.ops.size()); ++op) {
      if (graph.ops[op].role != graph::OpRole::compute) continue;
      const int slots = static_cast<int>(graph.ops[op].inputs.size());
      for (int slot = 0; slot < slots; ++slot) {
        const int quantizer =
            config::quantizer_of_input(graph, subject_.placement, op, slot);
        if (quantizer != kNone) readers[quantizer].push_back(op);
      }
    }
    return readers;
  }

  // Ops that read the quantizer's values, or put theirs out through it where it
  // is tied, and did not ask for its new precision.
  void add_bystanders(const Verdict& verdict, const std::vector<int>& readers) {
    const graph::OpGraph& graph = subject_.graph;
    const Claim& winner = standing(verdict.winner);
    if (winner.precision == subject_.resolution.before[verdict.quantizer]) {
      return;
    }
    std::set<int> ops(readers.begin(), readers.end());
    const std::vector<int>& sites =
        subject_.placement.quantizers[verdict.quantizer].sites;
    if (sites.size() > 1) {
      for (const int site : sites) {
        const int op = subject_.op_of_site(site);
        if (op != kNone) ops.insert(op);
      }
    }
    for (const int index : verdict.claimants) {
      const Claim& claim = standing(index);
      if (claim.precision == winner.precision) ops.erase(claim.op);
    }
    if (ops.empty()) return;
    const std::string precision = winner.precision.name();
    Names names;
    for (const int op : ops) names.push_back(graph.ops[op].name);
    lines_.push_back(
        line_of_quantizer(subject_, winner.request, verdict.quantizer,
                          concat(precision, " is seen too by ", join(names))));
    ReportLine& line = lines_.back().line;
    line.gist = precision + " is seen too by others";
    line.facts.emplace_back("what", "seen by others");
    line.facts.emplace_back("precision", precision);
    line.facts.emplace_back("seen_by", names);
  }

  const ReportSubject& subject_;
  std::vector<PlacedLine> lines_;
};

}  // namespace

std::vector<PlacedLine> lines_of_propagation(const ReportSubject& subject) {
  return PropagationWriter(subject).run();
}

std::vector<PlacedLine> lines_of_outvoted(const ReportSubject& subject) {
  std::vector<PlacedLine> lines;
  for (const Verdict& verdict : subject.resolution.verdicts) {
    const Claim& winner = subject.resolution.claims.standing[verdict.winner];
    const std::string quantizer =
        describe_quantizer(subject.graph, subject.placement, verdict.quantizer);
    for (const int index : verdict.claimants) {
      const Claim& claim = subject.resolution.claims.standing[index];
      if (claim.precision == winner.precision) continue;
      const std::string asked = claim.precision.name();
      const std::string is = winner.precision.name();
      const std::string winner_aspect = describe_aspect(subject.graph, winner);
      lines.push_back(line_of_aspect(
          subject, claim,
          concat(asked, "; ", quantizer, " is ", is, " by request ",
                 winner.request + 1, " (", winner_aspect, ")")));
      ReportLine& line = lines.back().line;
      line.by = {winner.request};
      line.gist = concat(asked, "; the quantizer is ", is, " by {by}");
      line.facts.emplace_back("reason", "other layer");
      line.facts.emplace_back("precision", asked);
      line.facts.emplace_back(
          "quantizer", name_of_quantizer(subject.graph, subject.placement,
                                         verdict.quantizer));
      line.facts.emplace_back("after", is);
      line.facts.emplace_back("by", std::vector<int>{winner.request + 1});
      line.facts.emplace_back("by_aspect", winner_aspect);
    }
  }
  return lines;
}

}  // namespace aimetpp::mixed
