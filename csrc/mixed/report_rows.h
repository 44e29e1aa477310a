// SPDX-License-Identifier: BSD-3-Clause
// The lines of a report section as rows that a person reads, also where there
// are thousands of lines.
#pragma once

#include <string>
#include <vector>

#include "core/macros.h"
#include "mixed/report_line.h"

namespace aimetpp::mixed {

// One printed row of a section.
struct ReportRow {
  int depth = 0;         // of the containers whose names stand above it
  std::string requests;  // numbers from one: "3", "1-50, 52"; "" for none
  std::string subject;  // "conv1", "stages.{0-3} (50 x conv2d)", or a container
  std::string detail;   // "" for a container's name
};

// A short section row by row; a long one folded: lines of one kind that say the
// same in several children of a container are one row,
// "container.{0-3, 5} (count x kind)". What differs stands below the
// container's name. Containers are in the order of their first lines, numbered
// ones in that of their numbers.
AIMETPP_API std::vector<ReportRow> rows_of_section(
    const std::vector<ReportLine>& lines);

// The section of the requests: always in their order; of a long one, calls in
// a row from one source line that ask for the same are one row.
AIMETPP_API std::vector<ReportRow> rows_of_requests(
    const std::vector<ReportLine>& lines);

}  // namespace aimetpp::mixed
