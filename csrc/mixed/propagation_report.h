// SPDX-License-Identifier: BSD-3-Clause
// How far a request's precision reaches beyond the leaf it is about.
#pragma once

#include <vector>

#include "mixed/report_parts.h"

namespace aimetpp::mixed {

// Precisions that are realized at another leaf's quantizer, or nowhere, and who
// else sees what changed.
std::vector<PlacedLine> lines_of_propagation(const ReportSubject& subject);

// Claims that lost a quantizer to another leaf's claim.
std::vector<PlacedLine> lines_of_outvoted(const ReportSubject& subject);

}  // namespace aimetpp::mixed
