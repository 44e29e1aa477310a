// SPDX-License-Identifier: BSD-3-Clause
#include "mixed/report_tree.h"

#include <algorithm>
#include <cctype>
#include <iterator>
#include <utility>

#include "core/text.h"

namespace aimetpp::mixed {
namespace {

using graph::kNone;

constexpr std::size_t kMostRanges = 6;  // of requests
constexpr std::size_t kMostItems = 40;  // ranges of items of a sequence
constexpr std::size_t kMostNames = 12;  // of children
constexpr std::size_t kMostSubjects = 3;
constexpr std::size_t kShortestProgression = 5;

using Ranges = std::vector<std::pair<int, int>>;

Ranges ranges_in(const std::set<int>& numbers) {
  Ranges ranges;
  for (const int number : numbers) {
    if (!ranges.empty() && ranges.back().second + 1 == number) {
      ranges.back().second = number;
    } else {
      ranges.emplace_back(number, number);
    }
  }
  return ranges;
}

// How many ranges from `first` on are single numbers at equal distances.
std::size_t progression_at(const Ranges& ranges, std::size_t first) {
  const auto is_single = [&](std::size_t index) {
    return ranges[index].first == ranges[index].second;
  };
  std::size_t count = 0;
  while (first + count < ranges.size() && is_single(first + count)) {
    if (count > 1 &&
        ranges[first + count].first - ranges[first + count - 1].first !=
            ranges[first + 1].first - ranges[first].first) {
      break;
    }
    ++count;
  }
  return count;
}

// "1-50, 52", "0, 2, ... 48"; of many the first `most`, and how many numbers
// there are.
std::string ranges_of(const std::set<int>& numbers, int first_number,
                      std::size_t most) {
  const Ranges ranges = ranges_in(numbers);
  Names words;
  std::size_t index = 0;
  // A progression is as long as two ranges.
  for (std::size_t used = 0; index < ranges.size() && used < most; ++used) {
    const int first = ranges[index].first + first_number;
    const int last = ranges[index].second + first_number;
    const std::size_t count = progression_at(ranges, index);
    if (count >= kShortestProgression) {
      words.push_back(concat(first, ", ",
                             ranges[index + 1].first + first_number, ", ... ",
                             ranges[index + count - 1].first + first_number));
      index += count;
      ++used;
      continue;
    }
    words.push_back(first == last ? std::to_string(first)
                                  : concat(first, "-", last));
    ++index;
  }
  if (index == ranges.size()) return join(words);
  return concat(join(words), ", ... (", numbers.size(), ")");
}

int number_of(const std::string& name) {
  const bool is_number =
      name.size() < 9 &&
      std::ranges::all_of(
          name, [](unsigned char c) { return std::isdigit(c) != 0; });
  return is_number && !name.empty() ? std::stoi(name) : kNone;
}

bool all_numbered(const std::vector<const Container*>& containers) {
  return std::ranges::all_of(containers, [](const Container* container) {
    return number_of(container->name) != kNone;
  });
}

Container& child_of(Container& parent, std::string_view called) {
  const auto found = parent.index.find(called);
  if (found != parent.index.end()) return *parent.children[found->second];
  parent.index.emplace(called, static_cast<int>(parent.children.size()));
  parent.children.push_back(std::make_unique<Container>());
  Container& child = *parent.children.back();
  child.name = called;
  child.path = parent.path.empty() ? std::string(called)
                                   : concat(parent.path, ".", called);
  return child;
}

void summarize(Container& container, const std::vector<ReportLine>& lines) {
  for (const int index : container.lines) {
    const Saying saying = saying_of_line(lines, index);
    saying_of_kind(container.sayings, saying.kind).merge(saying);
  }
  for (const auto& child : container.children) {
    summarize(*child, lines);
    for (const Saying& saying : child->sayings) {
      saying_of_kind(container.sayings, saying.kind).merge(saying);
    }
  }
}

}  // namespace

void Saying::merge(const Saying& other) {
  if (count > 0 && text != other.text) differs = true;
  if (count == 0) text = other.text;
  if (count == 0 || other.first_line < first_line) {
    first_line = other.first_line;
  }
  differs = differs || other.differs;
  count += other.count;
  requests.insert(other.requests.begin(), other.requests.end());
  by.insert(other.by.begin(), other.by.end());
}

std::string Saying::detail() const {
  std::string said = text;
  const std::size_t place = said.find("{by}");
  if (place != std::string::npos) {
    said.replace(
        place, 4,
        concat(by.size() == 1 ? "request " : "requests ", numbers_of(by)));
  }
  return said;
}

const std::string& text_of(const ReportLine& line) {
  return line.gist.empty() ? line.detail : line.gist;
}

Saying saying_of_line(const std::vector<ReportLine>& lines, int index) {
  const ReportLine& line = lines[index];
  Saying saying{line.kind, text_of(line), false, 1, index, {}, {}};
  if (line.request != kNone) saying.requests.insert(line.request);
  saying.by.insert(line.by.begin(), line.by.end());
  return saying;
}

Saying& saying_of_kind(Sayings& sayings, const std::string& kind) {
  const auto found = std::ranges::find(sayings, kind, &Saying::kind);
  if (found != sayings.end()) return *found;
  sayings.emplace_back().kind = kind;
  return sayings.back();
}

bool Container::has_kind(const std::string& kind) const {
  return std::ranges::find(sayings, kind, &Saying::kind) != sayings.end();
}

std::vector<const Container*> Container::children_in_order() const {
  std::vector<const Container*> found;
  for (const auto& child : children) found.push_back(child.get());
  if (all_numbered(found)) {
    std::ranges::stable_sort(found, {}, [](const Container* child) {
      return number_of(child->name);
    });
  }
  return found;
}

Container tree_of_lines(const std::vector<ReportLine>& lines) {
  Container root;
  for (std::size_t index = 0; index < lines.size(); ++index) {
    Container* place = &root;
    std::string_view rest = lines[index].module;
    while (!rest.empty()) {
      const std::size_t dot = rest.find('.');
      place = &child_of(*place, rest.substr(0, dot));
      rest = dot == std::string_view::npos ? "" : rest.substr(dot + 1);
    }
    place->lines.push_back(static_cast<int>(index));
  }
  summarize(root, lines);
  return root;
}

std::string names_of(const std::vector<const Container*>& children) {
  if (children.size() == 1) return children.front()->name;
  std::string names;
  if (all_numbered(children)) {
    std::set<int> numbers;
    for (const Container* child : children) {
      numbers.insert(number_of(child->name));
    }
    names = ranges_of(numbers, 0, kMostItems);
  } else {
    const std::size_t shown = std::min(children.size(), kMostNames);
    Names first;
    for (std::size_t index = 0; index < shown; ++index) {
      first.push_back(children[index]->name);
    }
    names = join(first);
    if (shown < children.size()) {
      names += concat(", ... ", children.back()->name);
    }
  }
  return concat("{", names, "}");
}

std::string first_of(const std::vector<std::string>& subjects) {
  Names first;
  for (const std::string& subject : subjects) {
    if (std::ranges::count(first, subject) > 0) continue;
    if (first.size() == kMostSubjects) return join(first) + ", ...";
    first.push_back(subject);
  }
  return join(first);
}

std::string numbers_of(const std::set<int>& requests) {
  return ranges_of(requests, 1, kMostRanges);
}

}  // namespace aimetpp::mixed
