// SPDX-License-Identifier: BSD-3-Clause
// Requests, or parts of them, that cannot change anything.
#pragma once

#include <vector>

#include "mixed/claims.h"
#include "mixed/resolver.h"

namespace aimetpp::mixed {

// One line for each thing asked that cannot change anything.
std::vector<ReportLine> find_ineffective(const graph::OpGraph& graph,
                                         const config::Placement& placement,
                                         const std::vector<Request>& requests,
                                         const Claims& claims);

}  // namespace aimetpp::mixed
