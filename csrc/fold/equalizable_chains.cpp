// SPDX-License-Identifier: BSD-3-Clause
#include "fold/equalizable_chains.h"

#include <algorithm>
#include <array>
#include <map>
#include <ranges>
#include <set>
#include <string_view>
#include <utility>

#include "fold/op_chain.h"

namespace aimetpp::fold {
namespace {

using graph::kNone;
using graph::Op;
using graph::OpGraph;

constexpr std::array<std::string_view, 4> kElementwise = {"relu", "leaky_relu",
                                                          "rrelu", "prelu"};
// Types of ops that mix neighbours within a channel.
constexpr std::array<std::string_view, 5> kWithinChannel = {
    "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "Resize"};

class ChainFinder {
 public:
  ChainFinder(const OpGraph& graph, Relu6 relu6,
              const std::vector<int>& transparent,
              const std::vector<int>& excluded)
      : graph_(graph),
        relu6_(relu6),
        transparent_(transparent.begin(), transparent.end()),
        excluded_(excluded.begin(), excluded.end()) {
    for (int op = 0; op < num_ops(); ++op) {
      if (graph.ops[op].call != kNone) ++num_calls_[identity(graph, op)];
    }
  }

  // A ReLU6 that is called outside chains too would be replaced there as well:
  // it stops them, and may so take another one out of its chain.
  std::vector<EqualizableChain> run() {
    while (true) {
      std::vector<EqualizableChain> chains = find_chains();
      if (!keep_relu6_outside(chains)) return chains;
    }
  }

 private:
  [[nodiscard]] std::vector<EqualizableChain> find_chains() const {
    std::vector<EqualizableChain> chains;
    std::vector<bool> is_inside(graph_.ops.size(), false);
    for (int op = 0; op < num_ops(); ++op) {
      if (is_inside[op] || !is_layer(op)) continue;
      EqualizableChain chain = chain_from(op);
      if (chain.layers.size() < 2) continue;
      for (std::size_t i = 1; i < chain.layers.size(); ++i) {
        const bool is_last = i + 1 == chain.layers.size();
        is_inside[chain.layers[i]] = !is_last;
      }
      chains.push_back(std::move(chain));
    }
    return chains;
  }

  // Returns whether it found any that is not kept yet.
  bool keep_relu6_outside(const std::vector<EqualizableChain>& chains) {
    std::map<std::string, int> calls_inside;
    for (const EqualizableChain& chain : chains) {
      for (const int op : std::views::join(chain.between)) {
        if (is_relu6(graph_, graph_.ops[op])) {
          ++calls_inside[identity(graph_, op)];
        }
      }
    }
    std::erase_if(calls_inside, [&](const auto& entry) {
      return entry.second == num_calls_.at(entry.first);
    });
    for (const auto& [module, calls] : calls_inside) kept_.insert(module);
    return !calls_inside.empty();
  }

  [[nodiscard]] int num_ops() const {
    return static_cast<int>(graph_.ops.size());
  }

  [[nodiscard]] bool is_layer(int index) const {
    const Op& op = graph_.ops[index];
    const bool is_linear = op.kind == "linear";
    if (op.call == kNone || (!is_linear && !op.kind.starts_with("conv"))) {
      return false;
    }
    return weight_of(op) != nullptr && !excluded_.contains(index) &&
           num_calls_.at(identity(graph_, index)) == 1 &&
           owns_parameters(graph_, index);
  }

  // As many channels out as in, each made of its own one only.
  [[nodiscard]] bool is_depthwise(int index) const {
    const Op& op = graph_.ops[index];
    if (op.kind == "linear" || op.inputs.empty()) return false;
    const auto& weight = weight_of(op)->shape;
    const auto& input = graph_.tensors[op.inputs.front()].shape;
    // One axis less than the weight's where there is no batch.
    const std::size_t axis = input.size() < weight.size() ? 0 : 1;
    return weight[1] == 1 && input.size() > axis && weight[0] == input[axis];
  }

  [[nodiscard]] bool passes_factor(int index, bool behind_linear) const {
    const Op& op = graph_.ops[index];
    if (is_no_op(op) || transparent_.contains(index)) return true;
    if (std::ranges::find(kElementwise, op.kind) != kElementwise.end()) {
      return true;
    }
    if (relu6_ == Relu6::replaced && is_relu6(graph_, op)) {
      return op.call != kNone && !graph_.calls[op.call].functional &&
             !kept_.contains(identity(graph_, index));
    }
    // A linear layer's channels are on the axis over which these go.
    return !behind_linear && std::ranges::find(kWithinChannel, op.onnx_type) !=
                                 kWithinChannel.end();
  }

  // Appends the next layer of the chain, if there is one.
  bool extend_chain(EqualizableChain& chain) const {
    const bool is_linear = graph_.ops[chain.layers.front()].kind == "linear";
    std::vector<int> between;
    int next = sole_reader(graph_, chain.layers.back());
    while (next != kNone && !is_layer(next) && passes_factor(next, is_linear)) {
      between.push_back(next);
      next = sole_reader(graph_, next);
    }
    if (next == kNone || !is_layer(next) ||
        (graph_.ops[next].kind == "linear") != is_linear) {
      return false;
    }
    chain.layers.push_back(next);
    chain.between.push_back(std::move(between));
    return true;
  }

  [[nodiscard]] EqualizableChain chain_from(int first) const {
    EqualizableChain chain{{first}, {}};
    while (extend_chain(chain) && is_depthwise(chain.layers.back())) {
    }
    return chain;
  }

  const OpGraph& graph_;
  Relu6 relu6_;
  std::set<int> transparent_;
  std::set<int> excluded_;
  std::map<std::string, int> num_calls_;
  std::set<std::string> kept_;  // ReLU6 modules that cannot be replaced
};

}  // namespace

std::vector<EqualizableChain> equalizable_chains(
    const OpGraph& graph, Relu6 relu6, const std::vector<int>& transparent,
    const std::vector<int>& excluded) {
  return ChainFinder(graph, relu6, transparent, excluded).run();
}

}  // namespace aimetpp::fold
