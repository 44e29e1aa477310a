// SPDX-License-Identifier: BSD-3-Clause
#include "graph/downstream.h"

#include <algorithm>

namespace aimetpp::graph {

std::vector<int> downstream_calls(const OpGraph& graph,
                                  const std::vector<int>& sites) {
  std::vector<bool> changed_site(graph.sites.size());
  std::vector<bool> changed_call(graph.calls.size());
  std::vector<bool> changed_tensor(graph.tensors.size());
  for (const int site : sites) {
    changed_site[site] = true;
    changed_call[graph.sites[site].call] = true;
  }
  const auto is_changed_site = [&](int site) {
    return site != kNone && changed_site[site];
  };
  for (const Op& op : graph.ops) {
    const bool changed =
        (op.call != kNone && changed_call[op.call]) ||
        std::ranges::any_of(
            op.inputs, [&](int tensor) { return changed_tensor[tensor]; }) ||
        std::ranges::any_of(op.input_sites, is_changed_site) ||
        std::ranges::any_of(op.output_sites, is_changed_site) ||
        std::ranges::any_of(op.params, [&](const Param& param) {
          return is_changed_site(param.site);
        });
    if (!changed) continue;
    if (op.call != kNone) changed_call[op.call] = true;
    for (const int tensor : op.outputs) changed_tensor[tensor] = true;
  }
  std::vector<int> calls;
  for (int call = 0; call < static_cast<int>(graph.calls.size()); ++call) {
    if (changed_call[call]) calls.push_back(call);
  }
  return calls;
}

}  // namespace aimetpp::graph
