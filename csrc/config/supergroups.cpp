// SPDX-License-Identifier: BSD-3-Clause
#include "config/supergroups.h"

#include <algorithm>
#include <numeric>
#include <string_view>

#include "fold/batch_norm_folds.h"
#include "fold/op_chain.h"

namespace aimetpp::config {
namespace {

using graph::kNone;
using graph::Op;
using graph::OpGraph;

bool has_call_of(const Op& op, std::string_view onnx_type) {
  return op.call != kNone && op.onnx_type == onnx_type;
}

}  // namespace

std::vector<Supergroup> match_supergroups(
    const OpGraph& graph,
    const std::vector<std::vector<std::string>>& patterns) {
  const int num_ops = static_cast<int>(graph.ops.size());
  std::vector<bool> folds(num_ops, false);
  for (const auto& [op, batch_norm] : fold::foldable_batch_norms(graph)) {
    folds[batch_norm] = true;
  }

  std::vector<int> by_length(patterns.size());
  std::iota(by_length.begin(), by_length.end(), 0);
  std::ranges::stable_sort(by_length, std::ranges::greater{},
                           [&](int i) { return patterns[i].size(); });

  std::vector<Supergroup> found;
  std::vector<bool> taken(num_ops, false);
  for (const int index : by_length) {
    const std::vector<std::string>& pattern = patterns[index];
    const auto step_over = [&](int op) {
      return (folds[op] || fold::is_no_op(graph.ops[op])) &&
             std::ranges::find(pattern, graph.ops[op].onnx_type) ==
                 pattern.end();
    };
    for (int first = 0; first < num_ops; ++first) {
      if (pattern.empty() || !has_call_of(graph.ops[first], pattern.front())) {
        continue;
      }
      Supergroup group{index, {first}};
      bool matches = true;
      for (std::size_t i = 1; i < pattern.size() && matches; ++i) {
        const int next = fold::extend(graph, group.ops, step_over);
        matches = next != kNone && has_call_of(graph.ops[next], pattern[i]);
      }
      matches = matches && std::ranges::none_of(
                               group.ops, [&](int op) { return taken[op]; });
      if (matches) {
        for (const int op : group.ops) {
          taken[op] = true;
        }
        found.push_back(std::move(group));
      }
    }
  }
  std::ranges::stable_sort(found, {},
                           [](const Supergroup& g) { return g.ops.front(); });
  return found;
}

}  // namespace aimetpp::config
