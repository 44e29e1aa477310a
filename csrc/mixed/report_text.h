// SPDX-License-Identifier: BSD-3-Clause
// A resolution's report as text that a person reads, also of thousands of
// layers.
#pragma once

#include <string>
#include <vector>

#include "core/macros.h"
#include "mixed/resolver.h"

namespace aimetpp::mixed {

// One printed row of a section.
struct ReportRow {
  int depth = 0;         // of the containers whose names stand above it
  std::string requests;  // numbers from one: "3", "1-50, 52"; "" for none
  std::string subject;   // "conv1", "stages.0.* (50 x conv2d)", or a container
  std::string detail;    // "" for a container's name
};

// A short section row by row; a long one folded: where all lines of one kind in
// a container say the same, they are one row "container.* (count x kind)"; so
// are neighbours that do, "block.1 to block.9 (count x kind)". Above what
// differs stands the container's name.
AIMETPP_API std::vector<ReportRow> rows_of_section(
    const std::vector<ReportLine>& lines);

// A summary, then the sections Requests, Inferred, Propagated, Realized,
// Overruled and Unchanged. `notes` are lines for the end of the summary.
AIMETPP_API std::string to_text(const Resolution& resolution,
                                const std::vector<std::string>& notes = {});

// The lines of the summary, without heading.
AIMETPP_API std::vector<std::string> summary_of(const Resolution& resolution);

}  // namespace aimetpp::mixed
