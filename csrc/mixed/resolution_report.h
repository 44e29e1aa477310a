// SPDX-License-Identifier: BSD-3-Clause
// The sections of a resolution's report.
#pragma once

#include <vector>

#include "mixed/report_parts.h"
#include "mixed/resolver.h"

namespace aimetpp::mixed {

// Fills all sections. Lines already in `resolution.overruled` stay. Requests
// and what was overruled are in the order of the requests (lines of no request
// last), the other sections in that of the graph.
void fill_report(const ReportSubject& subject,
                 const std::vector<Precision>& before, Resolution& resolution);

}  // namespace aimetpp::mixed
