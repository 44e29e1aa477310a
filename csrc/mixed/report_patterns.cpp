// SPDX-License-Identifier: BSD-3-Clause
#include "mixed/report_patterns.h"

#include <algorithm>
#include <iterator>
#include <map>
#include <tuple>

#include "core/text.h"

namespace aimetpp::mixed {
namespace {

// The subject behind the container's name: "/add_0", ".weight", " input 0";
// of a quantizer with several sites the first.
std::string tail_of(const Container& container, const ReportLine& line) {
  const std::string& subject = line.subject;
  const std::string& path = container.path;
  if (path.empty() || !subject.starts_with(path)) {
    return concat(path.empty() ? "" : ": ", subject);
  }
  const std::size_t end = subject.find(", ", path.size());
  if (end == std::string::npos) return subject.substr(path.size());
  return subject.substr(path.size(), end - path.size()) +
         " and what it is tied to";
}

// Patterns that differ in path, kind or text.
class PatternSet {
 public:
  void add(const Pattern& pattern, const Container* child) {
    const Saying& saying = pattern.saying;
    const auto [found, is_new] = index_.try_emplace(
        std::tuple(pattern.whole_path, saying.kind, saying.text),
        entries_.size());
    if (is_new) {
      entries_.push_back({pattern.whole_path, pattern.path, {}, {}});
      entries_.back().saying.kind = saying.kind;
    }
    Entry& entry = entries_[found->second];
    entry.saying.merge(saying);
    if (child != nullptr) entry.children.push_back(child);
  }

  [[nodiscard]] std::vector<Pattern> patterns() const {
    std::vector<Pattern> patterns;
    for (const Entry& entry : entries_) {
      const auto& children = entry.children;
      if (children.empty()) {
        patterns.push_back({entry.whole_path, entry.path, entry.saying});
        continue;
      }
      const std::string whole =
          join(children, [](const Container* child) { return child->name; });
      patterns.push_back({concat(".{", whole, "}", entry.whole_path),
                          concat(".", names_of(children), entry.path),
                          entry.saying});
    }
    return patterns;
  }

 private:
  struct Entry {
    std::string whole_path;
    std::string path;
    std::vector<const Container*> children;
    Saying saying;
  };

  std::map<std::tuple<std::string, std::string, std::string>, std::size_t>
      index_;
  std::vector<Entry> entries_;
};

}  // namespace

const std::vector<Pattern>& PatternBook::of(const Container& container) {
  const auto known = found_.find(&container);
  if (known != found_.end()) return known->second;
  return found_.emplace(&container, find(container)).first->second;
}

std::vector<Pattern> PatternBook::find(const Container& container) {
  const auto pattern_of = [&](int index) {
    const std::string tail = tail_of(container, lines_[index]);
    return Pattern{tail, tail, saying_of_line(lines_, index)};
  };
  if (container.children.empty() && container.lines.size() == 1) {
    return {pattern_of(container.lines.front())};  // most are such leaves
  }
  PatternSet own;
  for (const int index : container.lines) own.add(pattern_of(index), nullptr);
  PatternSet inside;
  for (const Container* child : container.children_in_order()) {
    for (const Pattern& pattern : of(*child)) inside.add(pattern, child);
  }
  std::vector<Pattern> patterns = own.patterns();
  std::ranges::move(inside.patterns(), std::back_inserter(patterns));
  return patterns;
}

}  // namespace aimetpp::mixed
