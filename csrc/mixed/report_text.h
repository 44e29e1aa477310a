// SPDX-License-Identifier: BSD-3-Clause
// A resolution's report as text that a person reads, also of thousands of
// layers.
#pragma once

#include <string>
#include <vector>

#include "core/macros.h"
#include "mixed/report_rows.h"
#include "mixed/resolution_report.h"

namespace aimetpp::mixed {

// A summary, then the sections Requests, Inferred, Propagated, Realized,
// Overruled and Unchanged. `notes` are lines for the end of the summary.
AIMETPP_API std::string to_text(const Resolution& resolution,
                                const ResolutionReport& report,
                                const std::vector<std::string>& notes = {});

// The lines of the summary, without heading.
AIMETPP_API std::vector<std::string> summary_of(const Resolution& resolution,
                                                const ResolutionReport& report);

}  // namespace aimetpp::mixed
