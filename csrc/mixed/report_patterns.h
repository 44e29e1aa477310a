// SPDX-License-Identifier: BSD-3-Clause
// Lines that say the same of the same part of several containers, such as the
// relu of every other block.
#pragma once

#include <string>
#include <unordered_map>
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

// The patterns of the containers of one section.
class PatternBook {
 public:
  explicit PatternBook(const std::vector<ReportLine>& lines) : lines_(lines) {}

  // All lines in the container, each in one pattern.
  const std::vector<Pattern>& of(const Container& container);

 private:
  [[nodiscard]] std::vector<Pattern> find(const Container& container);

  const std::vector<ReportLine>& lines_;
  std::unordered_map<const Container*, std::vector<Pattern>> found_;
};

}  // namespace aimetpp::mixed
