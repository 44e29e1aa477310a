// SPDX-License-Identifier: BSD-3-Clause
#include "mixed/report_rows.h"

#include <algorithm>
#include <cctype>
#include <iterator>
#include <memory>
#include <set>
#include <string_view>
#include <utility>

#include "core/text.h"

namespace aimetpp::mixed {
namespace {

using graph::kNone;

constexpr std::size_t kLongestFlatSection = 30;
constexpr std::size_t kMostRanges = 6;
constexpr std::size_t kMostNames = 3;
constexpr std::size_t kMostChildren = 12;  // by name

// "1-50, 52": numbers of requests as the user counts; of many the first.
std::string ranges_of(const std::set<int>& numbers, int first_number,
                      std::size_t most) {
  std::vector<std::string> ranges;
  for (auto first = numbers.begin(); first != numbers.end();) {
    auto last = first;
    auto next = std::next(first);
    while (next != numbers.end() && *next == *last + 1) last = next++;
    ranges.push_back(std::to_string(*first + first_number));
    if (last != first) {
      ranges.back() += concat("-", *last + first_number);
    }
    first = next;
  }
  if (ranges.size() <= most) return join(ranges);
  ranges.resize(most);
  return concat(join(ranges), ", ... (", numbers.size(), ")");
}

std::string numbers_of(const std::set<int>& requests) {
  return ranges_of(requests, 1, kMostRanges);
}

const std::string& saying_of(const ReportLine& line) {
  return line.gist.empty() ? line.detail : line.gist;
}

ReportRow row_of_line(const ReportLine& line) {
  const std::string number =
      line.request == kNone ? "" : std::to_string(line.request + 1);
  return {0, number, line.subject, line.detail};
}

// What lines of one kind say.
struct Saying {
  std::string kind;
  std::string text;  // of the first; all say it unless they differ
  bool differs = false;
  int count = 0;
  int first_line = kNone;
  std::set<int> requests;
  std::set<int> by;

  void merge(const Saying& other) {
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
};

// Few kinds; by first appearance.
using Sayings = std::vector<Saying>;

Saying& saying_of_kind(Sayings& sayings, const std::string& kind) {
  const auto found = std::ranges::find(sayings, kind, &Saying::kind);
  if (found != sayings.end()) return *found;
  sayings.emplace_back().kind = kind;
  return sayings.back();
}

struct Container {
  std::string name;
  std::string path;
  std::vector<int> lines;  // that belong to no module inside
  std::vector<std::unique_ptr<Container>> children;
  std::map<std::string, int, std::less<>> index;  // of a child, by name
  Sayings sayings;  // of all lines in it, one for each kind

  Container& child(std::string_view called) {
    const auto found = index.find(called);
    if (found != index.end()) return *children[found->second];
    index.emplace(called, static_cast<int>(children.size()));
    children.push_back(std::make_unique<Container>());
    children.back()->name = called;
    children.back()->path =
        path.empty() ? std::string(called) : concat(path, ".", called);
    return *children.back();
  }
};

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

// "layer1.{0-3, 5}", "{conv1, conv2}".
std::string names_of(const Container& parent,
                     const std::vector<const Container*>& children) {
  std::string names;
  if (all_numbered(children)) {
    std::set<int> numbers;
    for (const Container* child : children) {
      numbers.insert(number_of(child->name));
    }
    names = ranges_of(numbers, 0, numbers.size());
  } else {
    const std::size_t shown = std::min(children.size(), kMostChildren);
    Names first;
    for (std::size_t index = 0; index < shown; ++index) {
      first.push_back(children[index]->name);
    }
    names = join(first);
    if (shown < children.size()) {
      names += concat(", ... ", children.back()->name);
    }
  }
  return concat(parent.path, parent.path.empty() ? "{" : ".{", names, "}");
}

// Rows that stand together, and where.
struct Block {
  int first_line = kNone;
  std::vector<ReportRow> rows;
};

class SectionFolder {
 public:
  explicit SectionFolder(const std::vector<ReportLine>& lines) : lines_(lines) {
    for (std::size_t index = 0; index < lines.size(); ++index) {
      Container* place = &root_;
      std::string_view rest = lines[index].module;
      while (!rest.empty()) {
        const std::size_t dot = rest.find('.');
        place = &place->child(rest.substr(0, dot));
        rest = dot == std::string_view::npos ? "" : rest.substr(dot + 1);
      }
      place->lines.push_back(static_cast<int>(index));
    }
    summarize(root_);
  }

  [[nodiscard]] std::vector<ReportRow> run() const {
    std::set<std::string> kinds;
    for (const Saying& saying : root_.sayings) kinds.insert(saying.kind);
    return rows_of(root_, kinds);
  }

 private:
  [[nodiscard]] Saying saying_of_line(int index) const {
    const ReportLine& line = lines_[index];
    Saying saying{line.kind, saying_of(line), false, 1, index, {}, {}};
    if (line.request != kNone) saying.requests.insert(line.request);
    saying.by.insert(line.by.begin(), line.by.end());
    return saying;
  }

  void summarize(Container& container) const {
    for (const int index : container.lines) {
      const Saying saying = saying_of_line(index);
      saying_of_kind(container.sayings, saying.kind).merge(saying);
    }
    for (const auto& child : container.children) {
      summarize(*child);
      for (const Saying& saying : child->sayings) {
        saying_of_kind(container.sayings, saying.kind).merge(saying);
      }
    }
  }

  [[nodiscard]] ReportRow row_of(const std::string& subject,
                                 const Saying& saying) const {
    if (saying.count == 1) return row_of_line(lines_[saying.first_line]);
    std::string detail = saying.text;
    const std::size_t place = detail.find("{by}");
    if (place != std::string::npos) {
      detail.replace(place, 4,
                     concat(saying.by.size() == 1 ? "request " : "requests ",
                            numbers_of(saying.by)));
    }
    return {0, numbers_of(saying.requests),
            concat(subject, " (", saying.count, " x ", saying.kind, ")"),
            detail};
  }

  // Where in the container lines of a kind are: in which of its children, by
  // the functional ops of its own ("block/*"), or both ("block.*").
  [[nodiscard]] std::string where_of(const Container& container,
                                     const std::string& kind) const {
    const bool by_itself = std::ranges::any_of(
        container.lines, [&](int index) { return lines_[index].kind == kind; });
    std::vector<const Container*> children;
    for (const Container* child : in_order(container)) {
      if (has_kind(*child, kind)) children.push_back(child);
    }
    const std::string& path = container.path;
    if (by_itself && !children.empty()) return path.empty() ? "*" : path + ".*";
    if (by_itself) {
      const bool is_leaf = !path.empty() && container.children.empty();
      return is_leaf ? path : path + "/*";
    }
    if (children.size() == 1) return where_of(*children.front(), kind);
    return names_of(container, children);
  }

  static bool has_kind(const Container& container, const std::string& kind) {
    return std::ranges::find(container.sayings, kind, &Saying::kind) !=
           container.sayings.end();
  }

  // The rows of the lines of these kinds in the container.
  [[nodiscard]] std::vector<ReportRow> rows_of(
      const Container& container, const std::set<std::string>& kinds) const {
    std::vector<Block> blocks;
    std::set<std::string> open;
    for (const Saying& saying : container.sayings) {
      if (!kinds.contains(saying.kind)) continue;
      if (saying.differs) {
        open.insert(saying.kind);
        continue;
      }
      blocks.push_back({saying.first_line,
                        {row_of(where_of(container, saying.kind), saying)}});
    }
    if (!open.empty()) {
      add_own_lines(container, open, blocks);
      add_children(container, open, blocks);
    }
    std::ranges::stable_sort(blocks, {}, &Block::first_line);
    std::vector<ReportRow> rows;
    for (Block& block : blocks) {
      std::ranges::move(block.rows, std::back_inserter(rows));
    }
    if (container.path.empty() || rows.size() < 2) return rows;
    for (ReportRow& row : rows) ++row.depth;
    rows.insert(rows.begin(), {0, "", container.path, ""});
    return rows;
  }

  void add_own_lines(const Container& container,
                     const std::set<std::string>& open,
                     std::vector<Block>& blocks) const {
    for (const int index : container.lines) {
      if (!open.contains(lines_[index].kind)) continue;
      blocks.push_back({index, {row_of_line(lines_[index])}});
    }
  }

  // Children that say the same are one row for each kind.
  void add_children(const Container& container,
                    const std::set<std::string>& open,
                    std::vector<Block>& blocks) const {
    std::map<std::string, std::vector<const Container*>> alike;
    for (const Container* child : in_order(container)) {
      std::string key;
      bool differs = false;
      int first_line = kNone;
      for (const Saying& saying : child->sayings) {
        if (!open.contains(saying.kind)) continue;
        key += concat(saying.kind, "\n", saying.text, "\n");
        differs = differs || saying.differs;
        if (first_line == kNone) first_line = saying.first_line;
      }
      if (first_line == kNone) continue;
      if (differs) {
        blocks.push_back({first_line, rows_of(*child, open)});
      } else {
        alike[key].push_back(child);
      }
    }
    for (const auto& [key, children] : alike) {
      Block block;
      if (children.size() == 1) {
        block.rows = rows_of(*children.front(), open);
      }
      Sayings together;
      for (const Container* child : children) {
        for (const Saying& saying : child->sayings) {
          if (!open.contains(saying.kind)) continue;
          saying_of_kind(together, saying.kind).merge(saying);
        }
      }
      block.first_line = together.front().first_line;
      if (children.size() > 1) {
        const std::string subject = names_of(container, children);
        for (const Saying& saying : together) {
          block.rows.push_back(row_of(subject, saying));
        }
      }
      blocks.push_back(std::move(block));
    }
  }

  // The items of a sequence in their order, whichever a line names first.
  static std::vector<const Container*> in_order(const Container& container) {
    std::vector<const Container*> children;
    for (const auto& child : container.children) {
      children.push_back(child.get());
    }
    if (all_numbered(children)) {
      std::ranges::stable_sort(children, {}, [](const Container* child) {
        return number_of(child->name);
      });
    }
    return children;
  }

  const std::vector<ReportLine>& lines_;
  Container root_;
};

std::string source_of(const ReportLine& request) {
  for (const auto& [name, fact] : request.facts) {
    const auto* text = std::get_if<std::string>(&fact);
    if (name == "source" && text != nullptr) return *text;
  }
  return "";
}

}  // namespace

std::vector<ReportRow> rows_of_section(const std::vector<ReportLine>& lines) {
  if (lines.size() > kLongestFlatSection) return SectionFolder(lines).run();
  std::vector<ReportRow> rows;
  rows.reserve(lines.size());
  for (const ReportLine& line : lines) rows.push_back(row_of_line(line));
  return rows;
}

std::vector<ReportRow> rows_of_requests(const std::vector<ReportLine>& lines) {
  const bool is_short = lines.size() <= kLongestFlatSection;
  std::vector<ReportRow> rows;
  for (std::size_t first = 0; first < lines.size();) {
    std::size_t last = first + 1;
    const std::string source = source_of(lines[first]);
    while (!is_short && last < lines.size() &&
           source_of(lines[last]) == source) {
      ++last;
    }
    std::vector<std::string> sayings;
    std::map<std::string, std::vector<std::size_t>> alike;
    for (std::size_t index = first; index < last; ++index) {
      std::vector<std::size_t>& same = alike[lines[index].detail];
      if (same.empty()) sayings.push_back(lines[index].detail);
      same.push_back(index);
    }
    for (const std::string& saying : sayings) {
      const std::vector<std::size_t>& same = alike[saying];
      rows.push_back(row_of_line(lines[same.front()]));
      if (same.size() == 1) continue;
      std::set<int> numbers;
      Names subjects;
      for (const std::size_t index : same) {
        numbers.insert(lines[index].request);
        if (subjects.size() < kMostNames) {
          subjects.push_back(lines[index].subject);
        }
      }
      rows.back().requests = numbers_of(numbers);
      rows.back().subject =
          concat(join(subjects), same.size() > kMostNames ? ", ..." : "", " (",
                 same.size(), " requests)");
    }
    first = last;
  }
  return rows;
}

}  // namespace aimetpp::mixed
