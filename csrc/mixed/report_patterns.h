// SPDX-License-Identifier: BSD-3-Clause
// Lines that say the same of the same part of several containers, such as the
// relu of every other block.
#pragma once

#include <string>
#include <vector>

#include "mixed/report_tree.h"

namespace aimetpp::mixed {

struct Pattern {
  // Behind the container's path, with every name in it, and as it is printed:
  // ".{0, 2, ... 48}.relu", "/add_0".
  std::string whole_path;
  std::string path;
  Saying saying;
};

// All lines in the container, each in one pattern.
std::vector<Pattern> patterns_of(const Container& container,
                                 const std::vector<ReportLine>& lines);

}  // namespace aimetpp::mixed
