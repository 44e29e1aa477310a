// SPDX-License-Identifier: BSD-3-Clause
// The lines of a resolution's report.
#pragma once

#include <vector>

#include "mixed/claims.h"
#include "mixed/resolver.h"

namespace aimetpp::mixed {

// A quantizer that was claimed and the claim that decides it.
struct Verdict {
  int quantizer = graph::kNone;
  int winner = graph::kNone;   // index in Claims::standing
  std::vector<int> claimants;  // indices there too, the winner included
};

// Fills all sections from the claims and `verdicts` (ascending quantizers).
// Lines already in `resolution.overruled` stay; the section ends up in the
// order of the requests, lines of no request last.
void fill_report(const graph::OpGraph& graph,
                 const config::Placement& placement,
                 const std::vector<Precision>& current,
                 const std::vector<Request>& requests, const Claims& claims,
                 const std::vector<Verdict>& verdicts, Resolution& resolution);

}  // namespace aimetpp::mixed
