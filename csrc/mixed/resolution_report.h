// SPDX-License-Identifier: BSD-3-Clause
// How a resolution came about, line by line.
#pragma once

#include <vector>

#include "core/macros.h"
#include "mixed/report_line.h"
#include "mixed/resolver.h"

namespace aimetpp::mixed {

struct ResolutionReport {
  std::vector<ReportLine> requests, inferred, propagated, realized, overruled;
  std::vector<ReportLine> unchanged;  // quantizers that no request reached
};

// `resolution` must be that of these requests, on this graph and placement.
AIMETPP_API ResolutionReport report_of(const graph::OpGraph& graph,
                                       const config::Placement& placement,
                                       const std::vector<Request>& requests,
                                       const Resolution& resolution);

}  // namespace aimetpp::mixed
