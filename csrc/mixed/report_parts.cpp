// SPDX-License-Identifier: BSD-3-Clause
#include "mixed/report_parts.h"

#include <algorithm>
#include <utility>

#include "core/text.h"

namespace aimetpp::mixed {
namespace {

std::string side_of(const Claim& claim) {
  switch (claim.aspect) {
    case Aspect::input:
      return "input";
    case Aspect::output:
      return "output";
    case Aspect::param:
      return "param";
  }
  return "";
}

// "input", "output 1", "weight".
std::string aspect_word(const graph::OpGraph& graph, const Claim& claim) {
  const graph::Op& op = graph.ops[claim.op];
  if (claim.aspect == Aspect::param) return op.params[claim.slot].name;
  const std::size_t count =
      claim.aspect == Aspect::input ? op.inputs.size() : op.outputs.size();
  return count == 1 ? side_of(claim) : concat(side_of(claim), " ", claim.slot);
}

// What is claimed of one leaf, as facts.
class LeafFacts {
 public:
  void add(const graph::OpGraph& graph, const Claim& claim) {
    const std::string precision = claim.precision.name();
    switch (claim.aspect) {
      case Aspect::input:
        inputs_[std::to_string(claim.slot)] = precision;
        break;
      case Aspect::output:
        outputs_[std::to_string(claim.slot)] = precision;
        break;
      case Aspect::param:
        params_[graph.ops[claim.op].params[claim.slot].name] = precision;
    }
  }

  void append_to(Facts& facts) {
    facts.emplace_back("inputs", std::exchange(inputs_, {}));
    facts.emplace_back("outputs", std::exchange(outputs_, {}));
    facts.emplace_back("params", std::exchange(params_, {}));
  }

 private:
  PrecisionNames inputs_, outputs_, params_;
};

}  // namespace

std::vector<ReportLine> in_graph_order(std::vector<PlacedLine> lines) {
  std::ranges::stable_sort(lines, {}, &PlacedLine::op);
  std::vector<ReportLine> sorted;
  sorted.reserve(lines.size());
  for (PlacedLine& placed : lines) sorted.push_back(std::move(placed.line));
  return sorted;
}

PlacedLine line_of_quantizer(const ReportSubject& subject, int request,
                             int quantizer, std::string detail) {
  const graph::OpGraph& graph = subject.graph;
  const config::QuantizerSpec& spec = subject.placement.quantizers[quantizer];
  const graph::Site& site = graph.sites[spec.sites.front()];
  Names sites;
  for (const int each : spec.sites) sites.push_back(graph.site_name(each));
  ReportLine line;
  line.request = request;
  line.subject = join(sites);
  line.detail = std::move(detail);
  line.module = graph.calls[site.call].module;
  line.kind = spec.kind == graph::SiteKind::param ? site.param : "activation";
  line.facts = {{"quantizer", sites.front()},
                {"sites", sites},
                {"module", line.module},
                {"kind", line.kind}};
  return {subject.op_of_site(spec.sites.front()), std::move(line)};
}

PlacedLine line_of_aspect(const ReportSubject& subject, const Claim& claim,
                          std::string detail) {
  const graph::Op& op = subject.graph.ops[claim.op];
  const std::string side = side_of(claim);
  ReportLine line;
  line.request = claim.request;
  line.subject = describe_aspect(subject.graph, claim);
  line.detail = std::move(detail);
  line.module = module_of_op(subject.graph, claim.op);
  line.kind = concat(op.kind, " ", aspect_word(subject.graph, claim));
  line.facts = {{"layer", op.name}, {"module", line.module}, {"side", side}};
  if (claim.aspect == Aspect::param) {
    line.facts.emplace_back("slot", op.params[claim.slot].name);
  } else {
    line.facts.emplace_back("slot", claim.slot);
  }
  return {claim.op, std::move(line)};
}

std::vector<PlacedLine> lines_by_leaf(const ReportSubject& subject,
                                      const std::vector<Claim>& claims) {
  std::vector<PlacedLine> lines;
  LeafFacts said;
  for (std::size_t index = 0; index < claims.size(); ++index) {
    const Claim& claim = claims[index];
    const bool is_first = index == 0 || claims[index - 1].op != claim.op ||
                          claims[index - 1].request != claim.request;
    if (is_first) {
      const graph::Op& op = subject.graph.ops[claim.op];
      ReportLine line;
      line.request = claim.request;
      line.subject = op.name;
      line.module = module_of_op(subject.graph, claim.op);
      line.kind = claim.aspect == Aspect::param ? op.kind + " params" : op.kind;
      line.facts = {
          {"layer", op.name}, {"module", line.module}, {"op", op.kind}};
      lines.push_back({claim.op, std::move(line)});
    }
    ReportLine& line = lines.back().line;
    if (!is_first) line.detail += ", ";
    line.detail += aspect_word(subject.graph, claim) + " ";
    line.detail += claim.precision.name();
    said.add(subject.graph, claim);
    const bool is_last = index + 1 == claims.size() ||
                         claims[index + 1].op != claim.op ||
                         claims[index + 1].request != claim.request;
    if (is_last) said.append_to(line.facts);
  }
  return lines;
}

}  // namespace aimetpp::mixed
