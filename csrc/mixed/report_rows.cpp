// SPDX-License-Identifier: BSD-3-Clause
#include "mixed/report_rows.h"

#include <algorithm>
#include <iterator>
#include <map>
#include <set>
#include <span>
#include <utility>

#include "core/text.h"
#include "mixed/report_patterns.h"
#include "mixed/report_tree.h"

namespace aimetpp::mixed {
namespace {

using graph::kNone;

constexpr std::size_t kLongestFlatSection = 30;
constexpr std::size_t kMostSayings = 40;  // of the requests from one line
constexpr const char* kRequestKind = "request";

ReportRow row_of_line(const ReportLine& line) {
  const std::string number =
      line.request == kNone ? "" : std::to_string(line.request + 1);
  return {0, number, line.subject, line.detail};
}

// Rows that stand together, and where.
struct Block {
  int first_line = kNone;
  std::vector<ReportRow> rows;
};

// Without the names of containers.
std::size_t num_rows(const std::vector<Block>& blocks) {
  std::size_t count = 0;
  for (const Block& block : blocks) {
    count += std::ranges::count_if(
        block.rows, [](const ReportRow& row) { return !row.detail.empty(); });
  }
  return count;
}

class SectionFolder {
 public:
  explicit SectionFolder(const std::vector<ReportLine>& lines)
      : lines_(lines), root_(tree_of_lines(lines)), patterns_(lines) {}

  [[nodiscard]] std::vector<ReportRow> run() {
    std::set<std::string> kinds;
    for (const Saying& saying : root_.sayings) kinds.insert(saying.kind);
    return rows_of(root_, kinds);
  }

 private:
  [[nodiscard]] ReportRow row_of(const std::string& subject,
                                 const Saying& saying) const {
    if (saying.count == 1) return row_of_line(lines_[saying.first_line]);
    return {0, numbers_of(saying.requests),
            concat(subject, " (", saying.count, " x ", saying.kind, ")"),
            saying.detail()};
  }

  [[nodiscard]] std::string subjects_of(const Container& container,
                                        const std::string& kind,
                                        const std::string* text) const {
    Names subjects;
    for (const int index : container.lines) {
      const ReportLine& line = lines_[index];
      if (line.kind != kind) continue;
      if (text != nullptr && text_of(line) != *text) continue;
      subjects.push_back(line.subject);
    }
    return first_of(subjects);
  }

  // Where in the container lines of a kind are: in which of its children, by
  // the functional ops of its own ("block/*"), or both ("block.*").
  [[nodiscard]] std::string where_of(const Container& container,
                                     const std::string& kind) const {
    const bool by_itself = std::ranges::any_of(
        container.lines, [&](int index) { return lines_[index].kind == kind; });
    std::vector<const Container*> children;
    for (const Container* child : container.children_in_order()) {
      if (child->has_kind(kind)) children.push_back(child);
    }
    const std::string& path = container.path;
    if (by_itself && kind == kRequestKind) {
      return subjects_of(container, kind, nullptr);
    }
    if (by_itself && !children.empty()) return path.empty() ? "*" : path + ".*";
    if (by_itself) {
      const bool is_leaf = !path.empty() && container.children.empty();
      return is_leaf ? path : path + "/*";
    }
    if (children.size() == 1) return where_of(*children.front(), kind);
    return within(container, names_of(children));
  }

  static std::string within(const Container& container,
                            const std::string& names) {
    return container.path.empty() ? names : concat(container.path, ".", names);
  }

  // The rows of the lines of these kinds in the container: container by
  // container, or by patterns where that is shorter.
  [[nodiscard]] std::vector<ReportRow> rows_of(
      const Container& container, const std::set<std::string>& kinds) {
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
      std::vector<Block> by_container;
      add_own_lines(container, open, by_container);
      add_children(container, open, by_container);
      std::vector<Block> by_pattern;
      add_patterns(container, open, by_pattern);
      const bool is_shorter = num_rows(by_pattern) < num_rows(by_container);
      std::ranges::move(is_shorter ? by_pattern : by_container,
                        std::back_inserter(blocks));
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

  void add_patterns(const Container& container,
                    const std::set<std::string>& open,
                    std::vector<Block>& blocks) {
    for (const Pattern& pattern : patterns_.of(container)) {
      if (!open.contains(pattern.saying.kind)) continue;
      const bool is_root = container.path.empty();
      const std::string subject = is_root && pattern.path.starts_with(".")
                                      ? pattern.path.substr(1)
                                      : container.path + pattern.path;
      blocks.push_back(
          {pattern.saying.first_line, {row_of(subject, pattern.saying)}});
    }
  }

  // Those that say the same are one row.
  void add_own_lines(const Container& container,
                     const std::set<std::string>& open,
                     std::vector<Block>& blocks) const {
    std::map<std::pair<std::string, std::string>, Saying> alike;
    for (const int index : container.lines) {
      if (!open.contains(lines_[index].kind)) continue;
      const Saying saying = saying_of_line(lines_, index);
      Saying& together = alike[{saying.kind, saying.text}];
      together.kind = saying.kind;
      together.merge(saying);
    }
    for (const auto& [key, saying] : alike) {
      const std::string subject =
          subjects_of(container, saying.kind, &saying.text);
      blocks.push_back({saying.first_line, {row_of(subject, saying)}});
    }
  }

  // Children that say the same are one row for each kind.
  void add_children(const Container& container,
                    const std::set<std::string>& open,
                    std::vector<Block>& blocks) {
    std::map<std::string, std::vector<const Container*>> alike;
    for (const Container* child : container.children_in_order()) {
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
        const std::string subject = within(container, names_of(children));
        for (const Saying& saying : together) {
          block.rows.push_back(row_of(subject, saying));
        }
      }
      blocks.push_back(std::move(block));
    }
  }

  const std::vector<ReportLine>& lines_;
  const Container root_;
  PatternBook patterns_;
};

std::string source_of(const ReportLine& request) {
  for (const auto& [name, fact] : request.facts) {
    const auto* text = std::get_if<std::string>(&fact);
    if (name == "source" && text != nullptr) return *text;
  }
  return "";
}

ReportRow row_of_requests(const std::vector<const ReportLine*>& asked,
                          const std::string& detail) {
  std::set<int> numbers;
  Names subjects;
  for (const ReportLine* line : asked) {
    numbers.insert(line->request);
    subjects.push_back(line->subject);
  }
  return {0, numbers_of(numbers),
          concat(first_of(subjects), " (", asked.size(), " requests)"), detail};
}

// A row for each thing asked from one source line, and one for all beyond the
// first kMostSayings.
void add_requests_from(const std::string& source,
                       std::span<const ReportLine> lines,
                       std::vector<ReportRow>& rows) {
  std::vector<std::vector<const ReportLine*>> alike;
  std::map<std::string, std::size_t> index;
  for (const ReportLine& line : lines) {
    const auto [found, is_new] = index.try_emplace(line.detail, alike.size());
    if (is_new) alike.emplace_back();
    alike[found->second].push_back(&line);
  }
  std::vector<const ReportLine*> others;
  for (std::size_t each = 0; each < alike.size(); ++each) {
    const std::vector<const ReportLine*>& same = alike[each];
    if (each >= kMostSayings) {
      others.insert(others.end(), same.begin(), same.end());
    } else if (same.size() == 1) {
      rows.push_back(row_of_line(*same.front()));
    } else {
      rows.push_back(row_of_requests(same, same.front()->detail));
    }
  }
  if (others.size() == 1) rows.push_back(row_of_line(*others.front()));
  if (others.size() < 2) return;
  rows.push_back(row_of_requests(
      others, concat(alike.size() - kMostSayings, " other settings",
                     source.empty() ? "" : " at " + source)));
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
    add_requests_from(source, {lines.begin() + first, lines.begin() + last},
                      rows);
    first = last;
  }
  return rows;
}

}  // namespace aimetpp::mixed
