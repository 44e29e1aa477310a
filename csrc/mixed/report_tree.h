// SPDX-License-Identifier: BSD-3-Clause
// The lines of a report section by the modules that they are about, and what
// several of them say together.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "mixed/report_line.h"

namespace aimetpp::mixed {

// What lines of one kind say.
struct Saying {
  std::string kind;
  std::string text;  // of the first; all say it unless they differ
  bool differs = false;
  int count = 0;
  int first_line = graph::kNone;
  std::set<int> requests;
  std::set<int> by;

  void merge(const Saying& other);
  // The text, with the requests that it gave way to.
  [[nodiscard]] std::string detail() const;
};

// "{by}" in it stands for the requests that the line gave way to.
const std::string& text_of(const ReportLine& line);

Saying saying_of_line(const std::vector<ReportLine>& lines, int index);

// Few kinds; by first appearance.
using Sayings = std::vector<Saying>;

// Added where there is none.
Saying& saying_of_kind(Sayings& sayings, const std::string& kind);

// A module.
struct Container {
  std::string name;
  std::string path;
  std::vector<int> lines;  // that belong to no module inside
  std::vector<std::unique_ptr<Container>> children;
  std::map<std::string, int, std::less<>> index;  // of a child, by name
  Sayings sayings;  // of all lines in it, one for each kind

  [[nodiscard]] bool has_kind(const std::string& kind) const;
  // The items of a sequence in their order, whichever a line names first.
  [[nodiscard]] std::vector<const Container*> children_in_order() const;
};

Container tree_of_lines(const std::vector<ReportLine>& lines);

// "0-3, 5" or "{conv1, conv2}": names in braces, one name as it is.
std::string names_of(const std::vector<const Container*>& children);

// "a, b, c, ...": each once, the first few of many.
std::string first_of(const std::vector<std::string>& subjects);

// "1-50, 52": numbers of requests as the user counts; of many the first.
std::string numbers_of(const std::set<int>& requests);

}  // namespace aimetpp::mixed
