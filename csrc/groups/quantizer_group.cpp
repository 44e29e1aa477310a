// SPDX-License-Identifier: BSD-3-Clause
#include "groups/quantizer_group.h"

#include <algorithm>
#include <map>
#include <numeric>

#include "config/params.h"
#include "core/error.h"
#include "core/text.h"

namespace aimetpp::groups {
namespace {

using config::Placement;
using config::SupportedKernel;
using graph::kNone;
using graph::OpGraph;
using graph::SiteKind;

bool contains(const std::vector<int>& values, int value) {
  return std::ranges::find(values, value) != values.end();
}

void insert_sorted(std::vector<int>& values, int value) {
  const auto position = std::ranges::lower_bound(values, value);
  if (position == values.end() || *position != value) {
    values.insert(position, value);
  }
}

// The quantizer of the op's weight; kNone for a weightless op.
int weight_quantizer(const OpGraph& graph, const Placement& placement, int op) {
  const int weight = config::weight_of(graph, graph.ops[op]);
  return weight == kNone
             ? kNone
             : placement.quantizer_at(graph.ops[op].params[weight].site);
}

// Which quantizers meet in a kernel: a set for each activation, into which the
// params that are multiplied with it are drawn.
class GroupSets {
 public:
  GroupSets(const OpGraph& graph, const Placement& placement)
      : graph_(graph),
        placement_(placement),
        group_of_(placement.quantizers.size()),
        param_readers_(placement.quantizers.size()) {
    std::iota(group_of_.begin(), group_of_.end(), 0);
    for (int op = 0; op < static_cast<int>(graph.ops.size()); ++op) {
      for (const graph::Param& param : graph.ops[op].params) {
        const int quantizer = placement.quantizer_at(param.site);
        if (quantizer != kNone) {
          insert_sorted(param_readers_[quantizer], op);
        }
      }
    }
    assign_params();
    merge_where_kernels_tie();
  }

  // Representative quantizer of the group that holds `quantizer`.
  [[nodiscard]] int group_of(int quantizer) const {
    return group_of_[quantizer];
  }

  // The ops that read a param quantizer, ascending.
  [[nodiscard]] const std::vector<int>& readers(int quantizer) const {
    return param_readers_[quantizer];
  }

 private:
  [[nodiscard]] int activation_of(int op) const {
    return config::quantizer_of_input(graph_, placement_, op, 0);
  }

  void assign_params() {
    std::map<int, int> weight_only;  // by op: its first param quantizer
    for (int param = 0; param < size(); ++param) {
      const std::vector<int>& readers = param_readers_[param];
      if (readers.empty()) {
        continue;
      }
      const auto reader = std::ranges::find_if(
          readers, [this](int op) { return activation_of(op) != kNone; });
      group_of_[param] =
          reader != readers.end()
              ? activation_of(*reader)
              : weight_only.try_emplace(readers.front(), param).first->second;
    }
  }

  // A weight that is read with two activations ties them, where its op has
  // kernels for some pairs of precisions only.
  void merge_where_kernels_tie() {
    for (int param = 0; param < size(); ++param) {
      for (const int op : param_readers_[param]) {
        const int activation = activation_of(op);
        if (activation != kNone && !placement_.kernels_of_op[op].empty() &&
            weight_quantizer(graph_, placement_, op) == param) {
          const int from = group_of_[activation];
          std::ranges::replace(group_of_, from, group_of_[param]);
        }
      }
    }
  }

  [[nodiscard]] int size() const { return static_cast<int>(group_of_.size()); }

  const OpGraph& graph_;
  const Placement& placement_;
  std::vector<int> group_of_;                    // by quantizer
  std::vector<std::vector<int>> param_readers_;  // by quantizer, ops
};

// The ops without a quantized weight at whose output the quantizer stands.
std::vector<int> weightless_producers(const OpGraph& graph,
                                      const Placement& placement,
                                      const config::QuantizerSpec& quantizer) {
  std::vector<int> producers;
  for (const int site : quantizer.sites) {
    const int op = graph.op_of_site(site);
    if (graph.sites[site].kind == SiteKind::output &&
        weight_quantizer(graph, placement, op) == kNone) {
      producers.push_back(op);
    }
  }
  return producers;
}

// The quantizers of a group whose precisions must be those of one of an op's
// kernels; kNone: none of the group's.
struct KernelOperands {
  int activation = kNone;
  int weight = kNone;
};

// The weight and the activation that the op reads; of an op without a quantized
// weight, the activation that it puts out.
KernelOperands operands_in(const QuantizerGroup& group, const OpGraph& graph,
                           const Placement& placement, int op) {
  const int weight = weight_quantizer(graph, placement, op);
  const int activation =
      weight == kNone
          ? placement.quantizer_at(graph.ops[op].output_sites.front())
          : config::quantizer_of_input(graph, placement, op, 0);
  KernelOperands operands;
  if (contains(group.param_quantizers, weight)) operands.weight = weight;
  if (contains(group.activation_quantizers, activation)) {
    operands.activation = activation;
  }
  return operands;
}

}  // namespace

std::vector<QuantizerGroup> build_groups(const OpGraph& graph,
                                         const Placement& placement) {
  const GroupSets sets(graph, placement);
  std::vector<QuantizerGroup> groups;
  std::map<int, std::size_t> index_of;  // by representative quantizer
  const int num_quantizers = static_cast<int>(placement.quantizers.size());
  for (int index = 0; index < num_quantizers; ++index) {
    const auto [entry, added] =
        index_of.try_emplace(sets.group_of(index), groups.size());
    if (added) {
      groups.emplace_back();
    }
    QuantizerGroup& group = groups[entry->second];
    const config::QuantizerSpec& quantizer = placement.quantizers[index];
    if (quantizer.kind == SiteKind::param) {
      group.param_quantizers.push_back(index);
    } else {
      group.activation_quantizers.push_back(index);
    }
    for (const int op :
         quantizer.kind == SiteKind::param
             ? sets.readers(index)
             : weightless_producers(graph, placement, quantizer)) {
      insert_sorted(group.ops, op);
    }
  }
  for (const int site : config::sites_in_graph_order(graph)) {
    const int quantizer = placement.quantizer_of_site[site];
    if (quantizer == kNone) {
      continue;
    }
    std::string& name = groups[index_of.at(sets.group_of(quantizer))].name;
    if (name.empty()) {
      name = graph.site_name(site);
    }
  }
  return groups;
}

std::vector<int> supported_candidates(const QuantizerGroup& group,
                                      const OpGraph& graph,
                                      const Placement& placement,
                                      const std::vector<Candidate>& candidates,
                                      bool use_all_candidates,
                                      const std::map<int, Precision>& pinned) {
  if (candidates.empty()) {
    raise_value_error("candidates: required at least one, got none");
  }
  std::vector<int> left(candidates.size());
  std::iota(left.begin(), left.end(), 0);
  if (use_all_candidates) {
    return left;
  }
  for (const int op : group.ops) {
    const std::vector<SupportedKernel>& kernels = placement.kernels_of_op[op];
    if (kernels.empty()) {
      continue;
    }
    const KernelOperands operands = operands_in(group, graph, placement, op);
    const auto is_free = [&](int quantizer) {
      return quantizer != kNone && pinned.count(quantizer) == 0;
    };
    if (!is_free(operands.activation) && !is_free(operands.weight)) {
      continue;  // all of it is pinned
    }
    const auto fits = [&](int quantizer, const Precision& kernel,
                          const Precision& candidate) {
      if (quantizer == kNone) return true;
      const auto found = pinned.find(quantizer);
      return kernel == (found == pinned.end() ? candidate : found->second);
    };
    const auto takes = [&](const SupportedKernel& kernel, const Candidate& c) {
      return fits(operands.activation, kernel.activation, c.activation) &&
             (!kernel.param || fits(operands.weight, *kernel.param, c.param));
    };
    const std::vector<int> before = left;
    std::erase_if(left, [&](int index) {
      return std::ranges::none_of(kernels, [&](const SupportedKernel& kernel) {
        return takes(kernel, candidates[index]);
      });
    });
    if (left.empty()) {
      const std::string allowed_by_others =
          join(before, [&](int index) { return candidates[index].name(); });
      raise_value_error(
          "quantizer group ", group.name, ": no candidate is left: op ",
          graph.ops[op].name, " (", graph.ops[op].onnx_type, ") supports ",
          join(kernels, &SupportedKernel::name),
          " (activation/param); the candidates are ",
          join(candidates, &Candidate::name),
          before.size() == candidates.size()
              ? std::string()
              : ", of which its other ops allow " + allowed_by_others);
    }
  }
  return left;
}

}  // namespace aimetpp::groups
