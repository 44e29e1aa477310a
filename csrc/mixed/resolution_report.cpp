// SPDX-License-Identifier: BSD-3-Clause
#include "mixed/resolution_report.h"

#include <algorithm>
#include <limits>
#include <map>
#include <optional>
#include <set>

#include "core/text.h"

namespace aimetpp::mixed {
namespace {

using graph::kNone;

class ReportWriter {
 public:
  ReportWriter(const graph::OpGraph& graph, const config::Placement& placement,
               const std::vector<Claim>& claims,
               const std::vector<Verdict>& verdicts)
      : graph_(graph),
        placement_(placement),
        claims_(claims),
        verdicts_(verdicts) {}

  [[nodiscard]] std::vector<ReportLine> requests(
      const std::vector<Request>& requests) const {
    std::vector<ReportLine> lines;
    for (int index = 0; index < static_cast<int>(requests.size()); ++index) {
      const Request& asked = requests[index];
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
      lines.push_back(
          {index, asked.subject,
           concat(join(words), covered(asked),
                  asked.source.empty() ? "" : " at ", asked.source)});
    }
    return lines;
  }

  // Leaf by leaf, what is left of each request once later ones have spoken.
  [[nodiscard]] std::vector<ReportLine> inferred() const {
    return grouped([](const Claim& claim) -> Ending {
      if (claim.replaced_by != kNone) return std::nullopt;
      return "";
    });
  }

  [[nodiscard]] std::vector<ReportLine> replaced() const {
    return grouped([this](const Claim& claim) -> Ending {
      if (claim.replaced_by == kNone) return std::nullopt;
      const Claim& later = claims_[claim.replaced_by];
      if (later.precision == claim.precision) return std::nullopt;
      return concat("; request ", later.request + 1, " speaks of it later");
    });
  }

  [[nodiscard]] std::vector<ReportLine> propagated(
      const std::vector<Precision>& before) const {
    std::vector<ReportLine> lines;
    for (const Claim& claim : claims_) {
      if (claim.replaced_by != kNone) continue;
      const std::string where = propagation(claim);
      if (where.empty()) continue;
      lines.push_back({claim.request, describe_aspect(graph_, claim),
                       claim.precision.name() + where});
    }
    const std::map<int, std::vector<int>> readers = readers_of_quantizers();
    for (const Verdict& verdict : verdicts_) {
      const Claim& winner = claims_[verdict.winner];
      if (winner.precision == before[verdict.quantizer]) continue;
      const auto found = readers.find(verdict.quantizer);
      const std::vector<std::string> others = bystanders(
          verdict, found == readers.end() ? std::vector<int>() : found->second);
      if (others.empty()) continue;
      lines.push_back(
          {winner.request, quantizer_name(verdict.quantizer),
           concat(winner.precision.name(), " is seen too by ", join(others))});
    }
    return lines;
  }

  [[nodiscard]] std::vector<ReportLine> realized(
      const std::vector<Precision>& before) const {
    std::vector<ReportLine> lines;
    for (const Verdict& verdict : verdicts_) {
      const Claim& winner = claims_[verdict.winner];
      const Precision was = before[verdict.quantizer];
      lines.push_back({winner.request, quantizer_name(verdict.quantizer),
                       was == winner.precision
                           ? was.name() + " already"
                           : was.name() + " -> " + winner.precision.name()});
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
                    " (", describe_aspect(graph_, winner), ")")});
      }
    }
    return lines;
  }

 private:
  // What a claim's entry in a line ends with; nullopt: it has none.
  using Ending = std::optional<std::string>;

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
  // the ending that `ending_of` gives.
  template <typename EndingOf>
  [[nodiscard]] std::vector<ReportLine> grouped(EndingOf ending_of) const {
    std::vector<ReportLine> lines;
    int last_op = kNone;
    std::string last_ending;
    for (const Claim& claim : claims_) {
      const Ending given = ending_of(claim);
      if (!given) continue;
      const std::string& ending = *given;
      const std::string word =
          concat(aspect_word(claim), " ", claim.precision.name(), ending);
      if (!lines.empty() && lines.back().request == claim.request &&
          last_op == claim.op && last_ending == ending) {
        std::string& words = lines.back().detail;
        words.resize(words.size() - ending.size());
        words.append(", ").append(word);
      } else {
        lines.push_back({claim.request, graph_.ops[claim.op].name, word});
      }
      last_op = claim.op;
      last_ending = ending;
    }
    return lines;
  }

  // Empty where the claim is realized at the leaf's own site.
  [[nodiscard]] std::string propagation(const Claim& claim) const {
    const QuantizerRoute& route = claim.route;
    if (route.quantizers.empty()) {
      return route.fused ? ": inside its supergroup, nothing to quantize"
                         : ": no quantizer there";
    }
    if (route.path.empty()) return "";
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
  const std::vector<Claim>& claims_;
  const std::vector<Verdict>& verdicts_;
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

void write_section(std::string& text, const std::string& title,
                   const std::vector<ReportLine>& lines) {
  text += "\n" + title + "\n" + std::string(title.size(), '-') + "\n";
  if (lines.empty()) text += "(none)\n";
  for (const ReportLine& line : lines) {
    const std::string number =
        line.request == kNone ? "-" : std::to_string(line.request + 1);
    text += concat("[", number, "] ", line.subject, ": ", line.detail, "\n");
  }
}

}  // namespace

void fill_report(const graph::OpGraph& graph,
                 const config::Placement& placement,
                 const std::vector<Precision>& current,
                 const std::vector<Request>& requests,
                 const std::vector<Claim>& claims,
                 const std::vector<Verdict>& verdicts, Resolution& resolution) {
  const ReportWriter writer(graph, placement, claims, verdicts);
  resolution.requests = writer.requests(requests);
  resolution.inferred = writer.inferred();
  resolution.propagated = writer.propagated(current);
  resolution.realized = writer.realized(current);
  append(resolution.overruled, writer.replaced());
  append(resolution.overruled, writer.outvoted());
  sort_by_request(resolution.overruled);
}

std::string to_text(const Resolution& resolution) {
  std::string text =
      concat("Manual mixed precision: ", resolution.requests.size(),
             " requests, ", resolution.changes.size(), " quantizers changed, ",
             resolution.overruled.size(),
             " overruled\n(the number in brackets is that of the request)\n");
  write_section(text, "Requests", resolution.requests);
  write_section(text, "Inferred", resolution.inferred);
  write_section(text, "Propagated", resolution.propagated);
  write_section(text, "Realized", resolution.realized);
  write_section(text, "Overruled", resolution.overruled);
  return text;
}

}  // namespace aimetpp::mixed
