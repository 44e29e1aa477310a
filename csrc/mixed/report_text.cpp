// SPDX-License-Identifier: BSD-3-Clause
#include "mixed/report_text.h"

#include <algorithm>
#include <cctype>
#include <cstdio>
#include <map>
#include <memory>
#include <set>
#include <utility>

#include "core/text.h"

namespace aimetpp::mixed {
namespace {

using graph::kNone;

constexpr std::size_t kLongestFlatSection = 30;

// "1-50, 52": numbers of requests as the user counts.
std::string ranges_of(const std::set<int>& requests) {
  std::string text;
  for (auto first = requests.begin(); first != requests.end();) {
    auto last = first;
    auto next = std::next(first);
    while (next != requests.end() && *next == *last + 1) last = next++;
    text += concat(text.empty() ? "" : ", ", *first + 1);
    if (last != first) text += concat("-", *last + 1);
    first = next;
  }
  return text;
}

ReportRow row_of_line(const ReportLine& line, int depth) {
  const std::string number =
      line.request == kNone ? "" : std::to_string(line.request + 1);
  return {depth, number, line.subject, line.detail};
}

// What all lines of one kind in a container say.
struct Saying {
  std::string detail;
  int count = 0;
  int first_line = kNone;
  std::set<int> requests;
};

struct Container {
  std::string path;
  std::vector<int> lines;  // that belong to no module inside
  // By first appearance; by number where all have one for a name.
  std::vector<std::unique_ptr<Container>> children;
  std::map<std::string, int, std::less<>> index;  // of a child, by name
  bool is_uniform = true;  // of each kind, every line says the same
  std::map<std::string, Saying> by_kind;  // while uniform
  int num_lines = 0;

  Container& child(std::string_view name) {
    const auto found = index.find(name);
    if (found != index.end()) return *children[found->second];
    index.emplace(name, static_cast<int>(children.size()));
    children.push_back(std::make_unique<Container>());
    children.back()->path =
        path.empty() ? std::string(name) : concat(path, ".", name);
    return *children.back();
  }

  void merge(const std::string& kind, const Saying& saying) {
    if (!is_uniform) return;
    Saying& known = by_kind[kind];
    if (known.count > 0 && known.detail != saying.detail) {
      is_uniform = false;
      by_kind.clear();
      return;
    }
    known.detail = saying.detail;
    if (known.count == 0) known.first_line = saying.first_line;
    known.count += saying.count;
    known.requests.insert(saying.requests.begin(), saying.requests.end());
  }
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

  std::vector<ReportRow> run() {
    add_rows(root_, 0);
    return std::move(rows_);
  }

 private:
  void summarize(Container& container) const {
    container.num_lines = static_cast<int>(container.lines.size());
    for (const int index : container.lines) {
      const ReportLine& line = lines_[index];
      Saying saying{line.detail, 1, index, {}};
      if (line.request != kNone) saying.requests.insert(line.request);
      container.merge(line.kind, saying);
    }
    for (const auto& child : container.children) {
      summarize(*child);
      container.num_lines += child->num_lines;
      if (!child->is_uniform) container.is_uniform = false;
      for (const auto& [kind, saying] : child->by_kind) {
        container.merge(kind, saying);
      }
    }
    if (!container.is_uniform) container.by_kind.clear();
    sort_numbered(container);
  }

  // The items of a sequence in their order, whichever a line names first.
  static void sort_numbered(Container& container) {
    const auto number_of = [](const std::unique_ptr<Container>& child) {
      const std::string& path = child->path;
      const std::string name = path.substr(path.rfind('.') + 1);
      const bool is_number =
          name.size() < 9 &&
          std::all_of(
              name.begin(), name.end(),
              [](unsigned char c) { return std::isdigit(c) != 0; });
      return is_number ? std::stoi(name) : kNone;
    };
    auto& children = container.children;
    const bool all_numbered = std::all_of(
        children.begin(), children.end(),
        [&](const auto& child) { return number_of(child) != kNone; });
    if (!all_numbered) return;
    std::stable_sort(children.begin(), children.end(),
                     [&](const auto& lhs, const auto& rhs) {
                       return number_of(lhs) < number_of(rhs);
                     });
  }

  void add_rows(const Container& container, int depth) {
    const bool is_shorter =
        static_cast<int>(container.by_kind.size()) < container.num_lines;
    if (container.is_uniform && !container.children.empty() && is_shorter) {
      add_sayings(container.path.empty() ? "*" : container.path + ".*",
                  container.by_kind, depth);
      return;
    }
    const bool has_heading =
        !container.path.empty() && !container.children.empty() &&
        container.lines.size() + container.children.size() > 1;
    if (has_heading) rows_.push_back({depth, "", container.path, ""});
    const int inner = has_heading ? depth + 1 : depth;
    for (const int index : container.lines) {
      rows_.push_back(row_of_line(lines_[index], inner));
    }
    add_children(container, inner);
  }

  // Neighbours that say the same are one row: "block.1 to block.9".
  void add_children(const Container& container, int depth) {
    const auto& children = container.children;
    for (std::size_t first = 0; first < children.size();) {
      std::size_t last = first;
      while (last + 1 < children.size() &&
             says_the_same(*children[first], *children[last + 1])) {
        ++last;
      }
      if (last == first) {
        add_rows(*children[first], depth);
      } else {
        Container run;
        for (std::size_t index = first; index <= last; ++index) {
          for (const auto& [kind, saying] : children[index]->by_kind) {
            run.merge(kind, saying);
          }
        }
        add_sayings(children[first]->path + " to " + children[last]->path,
                    run.by_kind, depth);
      }
      first = last + 1;
    }
  }

  static bool says_the_same(const Container& lhs, const Container& rhs) {
    return lhs.is_uniform && rhs.is_uniform &&
           std::equal(lhs.by_kind.begin(), lhs.by_kind.end(),
                      rhs.by_kind.begin(), rhs.by_kind.end(),
                      [](const auto& one, const auto& other) {
                        return one.first == other.first &&
                               one.second.detail == other.second.detail;
                      });
  }

  void add_sayings(const std::string& subject,
                   const std::map<std::string, Saying>& by_kind, int depth) {
    for (const auto& [kind, saying] : by_kind) {
      if (saying.count == 1) {
        rows_.push_back(row_of_line(lines_[saying.first_line], depth));
        continue;
      }
      rows_.push_back({depth, ranges_of(saying.requests),
                       concat(subject, " (", saying.count, " x ", kind, ")"),
                       saying.detail});
    }
  }

  const std::vector<ReportLine>& lines_;
  Container root_;
  std::vector<ReportRow> rows_;
};

std::string short_number(double value) {
  char buffer[32];
  std::snprintf(buffer, sizeof(buffer), "%.4g", value);
  return buffer;
}

// "int8 12, int16 3", by bit-width.
std::string counts_of(const std::vector<Precision>& precisions) {
  std::map<Precision, int> counts;
  for (const Precision& precision : precisions) ++counts[precision];
  return join(counts, [](const auto& entry) {
    return concat(entry.first.name(), " ", entry.second);
  });
}

void write_section(std::string& text, const std::string& title,
                   const std::vector<ReportLine>& lines) {
  text += "\n" + title + "\n" + std::string(title.size(), '-') + "\n";
  if (lines.empty()) text += "(none)\n";
  for (const ReportRow& row : rows_of_section(lines)) {
    text.append(2 * static_cast<std::size_t>(row.depth), ' ');
    if (row.detail.empty()) {
      text += row.subject + "\n";
      continue;
    }
    const std::string number =
        row.requests.empty() ? std::string("-") : row.requests;
    text += concat("[", number, "] ", row.subject, ": ", row.detail, "\n");
  }
}

}  // namespace

std::vector<ReportRow> rows_of_section(const std::vector<ReportLine>& lines) {
  if (lines.size() > kLongestFlatSection) return SectionFolder(lines).run();
  std::vector<ReportRow> rows;
  rows.reserve(lines.size());
  for (const ReportLine& line : lines) rows.push_back(row_of_line(line, 0));
  return rows;
}

std::vector<std::string> summary_of(const Resolution& resolution) {
  const std::size_t count = resolution.precisions.size();
  std::vector<Precision> before = resolution.precisions;
  for (const Change& change : resolution.changes) {
    before[change.quantizer] = change.before;
  }
  std::string bit_ops = concat(
      "Bit-operations per sample: ", short_number(resolution.bit_ops_before),
      " -> ", short_number(resolution.bit_ops_after));
  if (resolution.bit_ops_before > 0) {
    bit_ops += concat(
        " (",
        short_number(resolution.bit_ops_after / resolution.bit_ops_before),
        " of before)");
  }
  return {
      concat(resolution.requests.size(), " requests, ",
             resolution.changes.size(), " of ", count, " quantizers changed, ",
             resolution.overruled.size(), " overruled"),
      bit_ops, "Quantizers before: " + counts_of(before),
      "Quantizers after: " + counts_of(resolution.precisions)};
}

std::string to_text(const Resolution& resolution,
                    const std::vector<std::string>& notes) {
  std::string text = "Manual mixed precision\n======================\n";
  for (const std::string& line : summary_of(resolution)) text += line + "\n";
  for (const std::string& note : notes) text += note + "\n";
  text += "(the number in brackets is that of the request)\n";
  write_section(text, "Requests", resolution.requests);
  write_section(text, "Inferred", resolution.inferred);
  write_section(text, "Propagated", resolution.propagated);
  write_section(text, "Realized", resolution.realized);
  write_section(text, "Overruled", resolution.overruled);
  write_section(text, "Unchanged", resolution.unchanged);
  return text;
}

}  // namespace aimetpp::mixed
