// SPDX-License-Identifier: BSD-3-Clause
// What the lines of several sections of a report are made of.
#pragma once

#include <string>
#include <vector>

#include "mixed/describe.h"
#include "mixed/report_line.h"
#include "mixed/resolver.h"

namespace aimetpp::mixed {

// A line and the op that it is about, by which a section is ordered; kNone
// stands before all others.
struct PlacedLine {
  int op = graph::kNone;
  ReportLine line;
};

// In graph order; lines about one op stay in theirs.
std::vector<ReportLine> in_graph_order(std::vector<PlacedLine> lines);

// What the report is about.
struct ReportSubject {
  const graph::OpGraph& graph;
  const config::Placement& placement;
  const std::vector<Request>& requests;
  const Resolution& resolution;
  std::vector<int> op_of_call;  // see OpGraph::ops_of_calls

  [[nodiscard]] int op_of_site(int site) const {
    const int call = graph.sites[site].call;
    return call == graph::kNone ? graph::kNone : op_of_call[call];
  }
};

// About a quantizer; its facts begin with those of the quantizer: "quantizer",
// "sites", "module", "kind".
PlacedLine line_of_quantizer(const ReportSubject& subject, int request,
                             int quantizer, std::string detail);

// About one input, output or parameter; its facts begin with "layer", "module",
// "side" ("input", "output", "param") and "slot" (a number or a name).
PlacedLine line_of_aspect(const ReportSubject& subject, const Claim& claim,
                          std::string detail);

// One line per request and leaf, "input int16, output int16, weight int4", with
// the facts "layer", "module", "op", "inputs", "outputs", "params".
std::vector<PlacedLine> lines_by_leaf(const ReportSubject& subject,
                                      const std::vector<Claim>& claims);

}  // namespace aimetpp::mixed
