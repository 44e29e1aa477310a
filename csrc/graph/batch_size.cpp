// SPDX-License-Identifier: BSD-3-Clause
#include "graph/batch_size.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <vector>

namespace aimetpp::graph {
namespace {

// Ops whose result may have its first dimensions' sizes from other dimensions.
constexpr std::array<std::string_view, 10> kReordering = {
    "aten::transpose", "aten::permute",  "aten::t",       "aten::numpy_T",
    "aten::movedim",   "aten::swapaxes", "aten::reshape", "aten::view",
    "aten::flatten",   "aten::flip"};

bool is_time_major_recurrence(const IrNode& node) {
  constexpr std::size_t kHasBiases = 3;  // a packed sequence has weights there
  constexpr std::size_t kBatchFirst = 8;
  const bool recurrent =
      node.kind == "aten::lstm" || node.kind == "aten::gru" ||
      node.kind == "aten::rnn_tanh" || node.kind == "aten::rnn_relu";
  return recurrent && node.args.size() > kBatchFirst &&
         node.args[kHasBiases].number && node.args[kBatchFirst].number == 0;
}

// Follows first arguments upstream while the first two dimensions stay.
class Walk {
 public:
  explicit Walk(const FlatIr& ir)
      : ir_(ir), producer_(ir.values.size(), kNone) {
    for (int n = 0; n < static_cast<int>(ir.nodes.size()); ++n) {
      for (const int value : ir.nodes[n].outputs) producer_[value] = n;
    }
  }

  [[nodiscard]] int source(int value) const {
    while (producer_[value] != kNone) {
      const IrNode& node = ir_.nodes[producer_[value]];
      const bool looks_up = node.kind == "aten::embedding";
      const std::size_t arg = looks_up ? 1 : 0;
      if (node.args.size() <= arg || node.args[arg].tensors.empty())
        return kNone;
      if (std::ranges::find(kReordering, node.kind) != kReordering.end()) {
        return kNone;
      }
      const int from = node.args[arg].tensors.front();
      if (!same_start(from, value)) return kNone;
      value = from;
    }
    return value;
  }

 private:
  [[nodiscard]] bool same_start(int a, int b) const {
    const auto& left = ir_.values[a].shape;
    const auto& right = ir_.values[b].shape;
    return left && right && left->size() >= 2 && right->size() >= 2 &&
           std::equal(left->begin(), left->begin() + 2, right->begin());
  }

  const FlatIr& ir_;
  std::vector<int> producer_;  // by value
};

}  // namespace

std::int64_t batch_size(const FlatIr& ir) {
  if (ir.inputs.empty()) return 1;
  const int input = ir.inputs.front();
  const auto& shape = ir.values[input].shape;
  const Walk walk(ir);
  const bool time_major =
      std::ranges::any_of(ir.nodes, [&](const IrNode& node) {
        return is_time_major_recurrence(node) &&
               !node.args.front().tensors.empty() &&
               walk.source(node.args.front().tensors.front()) == input;
      });
  const std::size_t axis = time_major ? 1 : 0;
  const bool known = shape && shape->size() > axis && (*shape)[axis] > 0;
  return known ? (*shape)[axis] : 1;
}

}  // namespace aimetpp::graph
