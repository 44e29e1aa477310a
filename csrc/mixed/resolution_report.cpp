// SPDX-License-Identifier: BSD-3-Clause
#include "mixed/resolution_report.h"

#include <algorithm>
#include <iterator>
#include <limits>
#include <utility>

#include "core/text.h"
#include "mixed/propagation_report.h"

namespace aimetpp::mixed {
namespace {

using graph::kNone;

bool covers_leaves(const Request& request) {
  return request.target != RequestTarget::model_input &&
         request.target != RequestTarget::model_output;
}

std::string name_of(RequestTarget target) {
  switch (target) {
    case RequestTarget::leaf:
      return "leaf";
    case RequestTarget::container:
      return "container";
    case RequestTarget::type:
      return "type";
    case RequestTarget::model_input:
      return "model_input";
    case RequestTarget::model_output:
      return "model_output";
  }
  return "";
}

Facts facts_of_request(const Request& asked) {
  std::vector<std::optional<std::string>> activations;
  for (const auto& precision : asked.activations) {
    activations.push_back(precision ? std::optional(precision->name())
                                    : std::nullopt);
  }
  PrecisionNames params;
  for (const auto& [name, precision] : asked.params) {
    params[name] = precision.name();
  }
  Facts facts = {{"target", name_of(asked.target)},
                 {"source", asked.source},
                 {"activation", activations},
                 {"params", params}};
  if (covers_leaves(asked)) {
    facts.emplace_back("layers", static_cast<int>(asked.ops.size()));
  } else {
    facts.emplace_back("layers", std::monostate());
  }
  return facts;
}

std::vector<ReportLine> lines_of_requests(
    const std::vector<Request>& requests) {
  std::vector<ReportLine> lines;
  for (int index = 0; index < static_cast<int>(requests.size()); ++index) {
    const Request& asked = requests[index];
    const Names activations = [&] {
      Names names;
      for (const auto& precision : asked.activations) {
        names.push_back(precision ? precision->name() : "as it is");
      }
      return names;
    }();
    Names words;
    if (!activations.empty()) {
      words.push_back(activations.size() == 1
                          ? "activation " + activations.front()
                          : "activation [" + join(activations) + "]");
    }
    for (const auto& [name, precision] : asked.params) {
      words.push_back(name + " " + precision.name());
    }
    if (words.empty()) words.emplace_back("nothing");
    const bool expanded = asked.target == RequestTarget::container ||
                          asked.target == RequestTarget::type;
    ReportLine line;
    line.request = index;
    line.subject = asked.subject;
    line.detail = join(words);
    if (expanded) {
      line.detail += " for " + counted(asked.ops.size(), "leaf call");
    }
    if (!asked.source.empty()) line.detail += " at " + asked.source;
    line.kind = "request";
    line.facts = facts_of_request(asked);
    lines.push_back(std::move(line));
  }
  return lines;
}

// Leaf by leaf, what is left of each request once later ones have spoken.
std::vector<ReportLine> lines_of_inferred(const ReportSubject& subject) {
  std::vector<Claim> claims = subject.resolution.claims.standing;
  std::ranges::stable_sort(claims, {}, &Claim::op);
  return in_graph_order(lines_by_leaf(subject, claims));
}

std::vector<ReportLine> lines_of_realized(const ReportSubject& subject) {
  const std::vector<Precision>& before = subject.resolution.before;
  std::vector<PlacedLine> lines;
  for (const Verdict& verdict : subject.resolution.verdicts) {
    const Claim& winner = subject.resolution.claims.standing[verdict.winner];
    const std::string was = before[verdict.quantizer].name();
    const std::string is = winner.precision.name();
    lines.push_back(line_of_quantizer(
        subject, winner.request, verdict.quantizer,
        was == is ? was + " already" : concat(was, " -> ", is)));
    lines.back().line.facts.emplace_back("before", was);
    lines.back().line.facts.emplace_back("after", is);
  }
  return in_graph_order(std::move(lines));
}

std::vector<ReportLine> lines_of_unchanged(const ReportSubject& subject) {
  const std::vector<Precision>& before = subject.resolution.before;
  std::vector<bool> reached(before.size(), false);
  for (const Verdict& verdict : subject.resolution.verdicts) {
    reached[verdict.quantizer] = true;
  }
  std::vector<PlacedLine> lines;
  for (int index = 0; index < static_cast<int>(before.size()); ++index) {
    if (reached[index]) continue;
    const std::string name = before[index].name();
    lines.push_back(line_of_quantizer(subject, kNone, index, name));
    lines.back().line.facts.emplace_back("precision", name);
  }
  return in_graph_order(std::move(lines));
}

// "request 3 speaks", "requests 3, 5 speak".
std::string speakers(const std::vector<int>& requests) {
  const bool is_one = requests.size() == 1;
  return concat(is_one ? "request " : "requests ",
                join(requests, [](int index) { return concat(index + 1); }),
                is_one ? " speaks" : " speak");
}

// What later requests on the same leaves took away from one request: leaf by
// leaf, or for many leaves in one line.
std::vector<PlacedLine> lines_of_replacement(const ReportSubject& subject,
                                             int request) {
  const Replacement& replaced = subject.resolution.claims.replaced[request];
  std::vector<PlacedLine> lines = lines_by_leaf(subject, replaced.claims);
  if (replaced.num_ops <= Replacement::kShownOps) {
    for (PlacedLine& placed : lines) {
      ReportLine& line = placed.line;
      for (std::size_t index = 0; index < replaced.claims.size(); ++index) {
        if (replaced.claims[index].op != placed.op) continue;
        if (!std::ranges::count(line.by, replaced.by[index])) {
          line.by.push_back(replaced.by[index]);
        }
      }
      line.gist = line.detail + "; {by} said otherwise later";
      line.detail += concat("; ", speakers(line.by), " of it later");
      line.facts.emplace_back("reason", "later request");
      line.facts.emplace_back("by", numbers_from_one(line.by));
    }
    return lines;
  }
  Names first;
  for (std::size_t index = 0; index < 3; ++index) {
    first.push_back(lines[index].line.subject);
  }
  ReportLine line;
  line.request = request;
  line.subject = subject.requests[request].subject;
  line.by = replaced.later;
  line.detail = concat(replaced.num_ops, " leaf calls (", join(first),
                       ", ...): ", speakers(replaced.later), " of them later");
  line.gist = concat(replaced.num_ops,
                     " leaf calls; {by} said otherwise of them later");
  line.kind = "request";
  line.facts = {{"reason", "later request"},
                {"layers", replaced.num_ops},
                {"first_layers", first},
                {"by", numbers_from_one(line.by)}};
  return {{lines.front().op, std::move(line)}};
}

void sort_by_request(std::vector<ReportLine>& lines) {
  std::ranges::stable_sort(lines, {}, [](const ReportLine& line) {
    return line.request == kNone ? std::numeric_limits<int>::max()
                                 : line.request;
  });
}

}  // namespace

ResolutionReport report_of(const graph::OpGraph& graph,
                           const config::Placement& placement,
                           const std::vector<Request>& requests,
                           const Resolution& resolution) {
  const ReportSubject subject{graph, placement, requests, resolution,
                              graph.ops_of_calls()};
  ResolutionReport report;
  report.requests = lines_of_requests(requests);
  report.inferred = lines_of_inferred(subject);
  report.propagated = in_graph_order(lines_of_propagation(subject));
  report.realized = lines_of_realized(subject);
  report.unchanged = lines_of_unchanged(subject);
  report.overruled = resolution.problems;
  std::vector<PlacedLine> overruled = lines_of_outvoted(subject);
  for (int request = 0; request < static_cast<int>(requests.size());
       ++request) {
    if (resolution.claims.replaced[request].num_ops == 0) continue;
    std::ranges::move(lines_of_replacement(subject, request),
                      std::back_inserter(overruled));
  }
  std::ranges::move(in_graph_order(std::move(overruled)),
                    std::back_inserter(report.overruled));
  sort_by_request(report.overruled);
  return report;
}

}  // namespace aimetpp::mixed
