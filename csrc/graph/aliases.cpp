// SPDX-License-Identifier: BSD-3-Clause
#include "graph/aliases.h"

#include <algorithm>
#include <numeric>
#include <set>

namespace aimetpp::graph {

Aliases::Aliases(const FlatIr& ir, const ValueFacts& facts)
    : ir_(ir),
      object_(ir.values.size()),
      names_(ir.values.size()),
      base_(ir.values.size()),
      viewed_(ir.values.size(), kNone),
      views_(ir.values.size()),
      last_use_(ir.values.size(), kNone) {
  std::iota(object_.begin(), object_.end(), 0);
  std::iota(base_.begin(), base_.end(), 0);
  for (const IrNode& node : ir.nodes) {
    if (node.outputs.empty()) continue;
    const int first = node.outputs.front();
    if (node.is_marker() || writes_in_place(node)) {
      const std::vector<int> reads = read_values(node);
      if (!reads.empty()) object_[first] = object_[reads.front()];
      continue;
    }
    for (const int value : node.outputs) {
      if (facts.viewed[value] == kNone) continue;
      viewed_[value] = object_[facts.viewed[value]];
      base_[value] = base_[viewed_[value]];
      views_[base_[value]].push_back(value);
    }
  }
  for (int value = 0; value < static_cast<int>(object_.size()); ++value) {
    const int object = object_[value];
    names_[object].push_back(value);
    last_use_[object] = std::max(last_use_[object], facts.last_use[value]);
  }
}

std::vector<int> Aliases::read_views(int base, int written, int n) const {
  std::set<int> read;
  const std::vector<int>& views = views_[base];
  for (auto view = views.rbegin(); view != views.rend(); ++view) {
    if (ir_.values[*view].producer >= n || *view == written) continue;
    if (!is_read_behind(*view, n) && !read.contains(*view)) continue;
    read.insert(*view);
    const int parent = viewed_[*view];
    if (parent != base && parent != written) read.insert(parent);
  }
  return {read.begin(), read.end()};
}

}  // namespace aimetpp::graph
