// SPDX-License-Identifier: BSD-3-Clause
#include "mixed/resolution_report.h"

#include <algorithm>
#include <limits>
#include <map>
#include <set>
#include <utility>

#include "core/text.h"

namespace aimetpp::mixed {
namespace {

using graph::kNone;

class ReportWriter {
 public:
  ReportWriter(const graph::OpGraph& graph, const config::Placement& placement,
               const std::vector<Request>& asked, const Claims& claims,
               const std::vector<Verdict>& verdicts)
      : graph_(graph),
        placement_(placement),
        requests_(asked),
        all_(claims),
        claims_(claims.standing),
        verdicts_(verdicts) {}

  [[nodiscard]] std::vector<ReportLine> requests() const {
    std::vector<ReportLine> lines;
    for (int index = 0; index < static_cast<int>(requests_.size()); ++index) {
      const Request& asked = requests_[index];
      std::vector<std::string> activations;
      for (const auto& precision : asked.activations) {
        activations.push_back(precision ? precision->name() : "as it is");
      }
      std::vector<std::string> words;
      if (!activations.empty()) {
        words.push_back(activations.size() == 1
                            ? "activation " + activations.front()
                            : "activation [" + join(activations) + "]");
      }
      for (const auto& [name, precision] : asked.params) {
        words.push_back(name + " " + precision.name());
      }
      if (words.empty()) words.push_back("nothing");
      lines.push_back({index, asked.subject,
                       concat(join(words), covered(asked),
                              asked.source.empty() ? "" : " at ", asked.source),
                       module_of_request(asked), "request"});
    }
    return lines;
  }

  // Leaf by leaf, what is left of each request once later ones have spoken.
  [[nodiscard]] std::vector<ReportLine> inferred() const {
    return by_leaf(claims_, "");
  }

  [[nodiscard]] std::vector<ReportLine> replaced() const {
    std::vector<ReportLine> lines;
    for (const Replacement& replacement : all_.replaced) {
      const std::string later = concat("request ", replacement.later + 1);
      std::vector<ReportLine> leaves =
          by_leaf(replacement.claims, "; " + later + " speaks of it later");
      if (replacement.num_ops <= Replacement::kShownOps) {
        lines.insert(lines.end(), leaves.begin(), leaves.end());
        continue;
      }
      leaves.resize(3);
      const Request& asked = requests_[replacement.request];
      lines.push_back({replacement.request, asked.subject,
                       concat(replacement.num_ops, " leaf calls (",
                              join(leaves, &ReportLine::subject),
                              ", ...): ", later, " speaks of them later"),
                       module_of_request(asked), "request"});
    }
    return lines;
  }

  [[nodiscard]] std::vector<ReportLine> propagated(
      const std::vector<Precision>& before) const {
    std::vector<ReportLine> lines;
    for (const Claim& claim : claims_) {
      const std::string where = propagation(claim);
      if (where.empty()) continue;
      lines.push_back({claim.request, describe_aspect(graph_, claim),
                       claim.precision.name() + where,
                       module_of_op(graph_, claim.op),
                       graph_.ops[claim.op].kind});
    }
    const std::map<int, std::vector<int>> readers = readers_of_quantizers();
    for (const Verdict& verdict : verdicts_) {
      const Claim& winner = claims_[verdict.winner];
      if (winner.precision == before[verdict.quantizer]) continue;
      const auto found = readers.find(verdict.quantizer);
      const std::vector<std::string> others = bystanders(
          verdict, found == readers.end() ? std::vector<int>() : found->second);
      if (others.empty()) continue;
      lines.push_back(line_of_quantizer(
          winner.request, verdict.quantizer,
          concat(winner.precision.name(), " is seen too by ", join(others))));
    }
    return lines;
  }

  [[nodiscard]] std::vector<ReportLine> realized(
      const std::vector<Precision>& before) const {
    std::vector<ReportLine> lines;
    for (const Verdict& verdict : verdicts_) {
      const Claim& winner = claims_[verdict.winner];
      const Precision was = before[verdict.quantizer];
      lines.push_back(line_of_quantizer(
          winner.request, verdict.quantizer,
          was == winner.precision
              ? was.name() + " already"
              : was.name() + " -> " + winner.precision.name()));
    }
    return lines;
  }

  [[nodiscard]] std::vector<ReportLine> unchanged(
      const std::vector<Precision>& before) const {
    std::vector<bool> reached(before.size(), false);
    for (const Verdict& verdict : verdicts_) reached[verdict.quantizer] = true;
    std::vector<ReportLine> lines;
    for (int index = 0; index < static_cast<int>(before.size()); ++index) {
      if (reached[index]) continue;
      lines.push_back(line_of_quantizer(kNone, index, before[index].name()));
    }
    return lines;
  }

  // Claims that lost a quantizer to another leaf's claim.
  [[nodiscard]] std::vector<ReportLine> outvoted() const {
    std::vector<ReportLine> lines;
    for (const Verdict& verdict : verdicts_) {
      const Claim& winner = claims_[verdict.winner];
      for (const int index : verdict.claimants) {
        const Claim& claim = claims_[index];
        if (claim.precision == winner.precision) continue;
        lines.push_back(
            {claim.request, describe_aspect(graph_, claim),
             concat(claim.precision.name(), "; ",
                    quantizer_name(verdict.quantizer), " is ",
                    winner.precision.name(), " by request ", winner.request + 1,
                    " (", describe_aspect(graph_, winner), ")"),
             module_of_op(graph_, claim.op), graph_.ops[claim.op].kind});
      }
    }
    return lines;
  }

 private:
  [[nodiscard]] ReportLine line_of_quantizer(int request, int quantizer,
                                             std::string detail) const {
    const config::QuantizerSpec& spec = placement_.quantizers[quantizer];
    const graph::Site& site = graph_.sites[spec.sites.front()];
    return {request, quantizer_name(quantizer), std::move(detail),
            graph_.calls[site.call].module,
            spec.kind == graph::SiteKind::param ? site.param : "activation"};
  }

  // A container's own name; what several modules were named by has none.
  static std::string module_of_request(const Request& request) {
    const bool is_module = request.target == RequestTarget::leaf ||
                           request.target == RequestTarget::container;
    return is_module ? request.subject : "";
  }

  static std::string covered(const Request& request) {
    const bool expanded = request.target == RequestTarget::container ||
                          request.target == RequestTarget::type;
    return expanded ? concat(" for ", request.ops.size(), " leaf calls") : "";
  }

  [[nodiscard]] std::string quantizer_name(int quantizer) const {
    return describe_quantizer(graph_, placement_, quantizer);
  }

  [[nodiscard]] std::string aspect_word(const Claim& claim) const {
    const graph::Op& op = graph_.ops[claim.op];
    switch (claim.aspect) {
      case Aspect::input:
        return op.inputs.size() == 1 ? "input" : concat("input ", claim.slot);
      case Aspect::output:
        return op.outputs.size() == 1 ? "output"
                                      : concat("output ", claim.slot);
      case Aspect::param:
        return op.params[claim.slot].name;
    }
    return "";
  }

  // One line per request and leaf: "input int16, output int16, weight int4" and
  // the ending.
  [[nodiscard]] std::vector<ReportLine> by_leaf(
      const std::vector<Claim>& claims, const std::string& ending) const {
    std::vector<ReportLine> lines;
    int last_op = kNone;
    for (const Claim& claim : claims) {
      const std::string word =
          concat(aspect_word(claim), " ", claim.precision.name());
      const bool same_leaf = !lines.empty() && last_op == claim.op &&
                             lines.back().request == claim.request;
      if (same_leaf) {
        lines.back().detail.append(", ").append(word);
      } else {
        const graph::Op& op = graph_.ops[claim.op];
        const bool is_param = claim.aspect == Aspect::param;
        lines.push_back({claim.request, op.name, word,
                         module_of_op(graph_, claim.op),
                         is_param ? op.kind + " params" : op.kind});
      }
      last_op = claim.op;
    }
    for (ReportLine& line : lines) line.detail += ending;
    return lines;
  }

  // The same request asks it of the quantizer's own leaf too.
  [[nodiscard]] bool is_asked_there(const Claim& claim) const {
    const std::vector<int>& quantizers = all_.route_of(claim).quantizers;
    return std::all_of(
        quantizers.begin(), quantizers.end(), [&](int quantizer) {
          const auto found =
              std::lower_bound(verdicts_.begin(), verdicts_.end(), quantizer,
                               [](const Verdict& verdict, int wanted) {
                                 return verdict.quantizer < wanted;
                               });
          return std::any_of(found->claimants.begin(), found->claimants.end(),
                             [&](int index) {
                               const Claim& other = claims_[index];
                               return other.request == claim.request &&
                                      other.precision == claim.precision &&
                                      all_.route_of(other).path.empty();
                             });
        });
  }

  // Empty where the claim is realized at the leaf's own site, or the request
  // covers the leaf where it is.
  [[nodiscard]] std::string propagation(const Claim& claim) const {
    const QuantizerRoute& route = all_.route_of(claim);
    if (route.quantizers.empty()) {
      return route.fused ? ": inside its supergroup, nothing to quantize"
                         : ": no quantizer there";
    }
    if (route.path.empty() || is_asked_there(claim)) return "";
    std::vector<std::string> names;
    for (const int quantizer : route.quantizers) {
      names.push_back(quantizer_name(quantizer));
    }
    std::vector<std::string> through;
    for (std::size_t step = 0; step + 1 < route.path.size(); ++step) {
      through.push_back(graph_.ops[route.path[step]].name);
    }
    return concat(" -> ", join(names), through.empty() ? "" : ", through ",
                  join(through));
  }

  [[nodiscard]] std::map<int, std::vector<int>> readers_of_quantizers() const {
    std::map<int, std::vector<int>> readers;
    for (int op = 0; op < static_cast<int>(graph_.ops.size()); ++op) {
      if (graph_.ops[op].role != graph::OpRole::compute) continue;
      const int slots = static_cast<int>(graph_.ops[op].inputs.size());
      for (int slot = 0; slot < slots; ++slot) {
        const int quantizer =
            config::quantizer_of_input(graph_, placement_, op, slot);
        if (quantizer != kNone) readers[quantizer].push_back(op);
      }
    }
    return readers;
  }

  // Ops that read the quantizer's values, or put theirs out through it where it
  // is tied, and did not ask for its new precision.
  [[nodiscard]] std::vector<std::string> bystanders(
      const Verdict& verdict, const std::vector<int>& readers) const {
    const Precision precision = claims_[verdict.winner].precision;
    std::set<int> ops(readers.begin(), readers.end());
    const std::vector<int>& sites =
        placement_.quantizers[verdict.quantizer].sites;
    if (sites.size() > 1) {
      for (const int site : sites) {
        const int op = graph_.op_of_site(site);
        if (op != kNone) ops.insert(op);
      }
    }
    for (const int index : verdict.claimants) {
      const Claim& claim = claims_[index];
      if (claim.precision == precision) ops.erase(claim.op);
    }
    std::vector<std::string> names;
    for (const int op : ops) names.push_back(graph_.ops[op].name);
    return names;
  }

  const graph::OpGraph& graph_;
  const config::Placement& placement_;
  const std::vector<Request>& requests_;
  const Claims& all_;
  const std::vector<Claim>& claims_;      // those that stand
  const std::vector<Verdict>& verdicts_;  // ascending quantizers
};

void append(std::vector<ReportLine>& lines, std::vector<ReportLine> more) {
  lines.insert(lines.end(), more.begin(), more.end());
}

void sort_by_request(std::vector<ReportLine>& lines) {
  const auto rank = [](const ReportLine& line) {
    return line.request == kNone ? std::numeric_limits<int>::max()
                                 : line.request;
  };
  std::stable_sort(lines.begin(), lines.end(),
                   [&](const ReportLine& lhs, const ReportLine& rhs) {
                     return rank(lhs) < rank(rhs);
                   });
}

}  // namespace

void fill_report(const graph::OpGraph& graph,
                 const config::Placement& placement,
                 const std::vector<Precision>& current,
                 const std::vector<Request>& requests, const Claims& claims,
                 const std::vector<Verdict>& verdicts, Resolution& resolution) {
  const ReportWriter writer(graph, placement, requests, claims, verdicts);
  resolution.requests = writer.requests();
  resolution.inferred = writer.inferred();
  resolution.propagated = writer.propagated(current);
  resolution.realized = writer.realized(current);
  resolution.unchanged = writer.unchanged(current);
  append(resolution.overruled, writer.replaced());
  append(resolution.overruled, writer.outvoted());
  sort_by_request(resolution.overruled);
}

}  // namespace aimetpp::mixed
