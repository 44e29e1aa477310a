// SPDX-License-Identifier: BSD-3-Clause
#include "mixed/quantizer_route.h"

#include <algorithm>

namespace aimetpp::mixed {
namespace {

using graph::kNone;

class RouteFinder {
 public:
  RouteFinder(const graph::OpGraph& graph, const config::Placement& placement)
      : graph_(graph), placement_(placement) {}

  [[nodiscard]] QuantizerRoute input(int op, int slot) const {
    QuantizerRoute route;
    const int quantizer =
        config::quantizer_of_input(graph_, placement_, op, slot);
    if (quantizer != kNone) {
      route.quantizers = {quantizer};
      route.path = path_upstream(op, slot, quantizer);
      return route;
    }
    route.fused = holds_fused_values(graph_.ops[op].inputs[slot]);
    // A model input that is viewed before anyone quantizes it.
    if (!route.fused && !graph_.ops[op].outputs.empty() &&
        placement_.keeps_precision(graph_, op)) {
      add_readers(graph_.ops[op].outputs.front(), route);
    }
    finish(route);
    return route;
  }

  [[nodiscard]] QuantizerRoute output(int op, int slot) const {
    const int own = placement_.quantizer_at(graph_.ops[op].output_sites[slot]);
    if (own != kNone) return {{own}, {}, false};
    QuantizerRoute route;
    if (placement_.keeps_precision(graph_, op) &&
        !graph_.ops[op].inputs.empty()) {
      const int quantizer =
          config::quantizer_of_input(graph_, placement_, op, 0);
      if (quantizer != kNone) {
        return {{quantizer}, path_upstream(op, 0, quantizer), false};
      }
    }
    add_readers(graph_.ops[op].outputs[slot], route);
    finish(route);
    return route;
  }

 private:
  static void finish(QuantizerRoute& route) {
    std::vector<int>& found = route.quantizers;
    std::sort(found.begin(), found.end());
    found.erase(std::unique(found.begin(), found.end()), found.end());
  }

  // `tensor` has no quantizer because it lies inside a chain of fused ops, and
  // not because the config wants none there.
  [[nodiscard]] bool is_fused(int tensor) const {
    const int producer = graph_.tensors[tensor].producer;
    if (producer == kNone || !placement_.is_fused[producer]) return false;
    const graph::Op& op = graph_.ops[producer];
    for (std::size_t slot = 0; slot < op.outputs.size(); ++slot) {
      if (op.outputs[slot] != tensor) continue;
      return placement_.quantizer_at(op.output_sites[slot]) == kNone;
    }
    return false;
  }

  [[nodiscard]] bool holds_fused_values(int tensor) const {
    while (!is_fused(tensor)) {
      const int producer = graph_.tensors[tensor].producer;
      if (producer == kNone) return false;
      const graph::Op& op = graph_.ops[producer];
      if (op.inputs.empty() || !placement_.keeps_precision(graph_, producer)) {
        return false;
      }
      tensor = op.inputs.front();
    }
    return true;
  }

  [[nodiscard]] std::vector<int> path_upstream(int op, int slot,
                                               int quantizer) const {
    std::vector<int> path;
    if (placement_.quantizer_at(graph_.ops[op].input_sites[slot]) ==
        quantizer) {
      return path;
    }
    int producer = graph_.tensors[graph_.ops[op].inputs[slot]].producer;
    while (producer != kNone) {
      path.push_back(producer);
      const graph::Op& walked = graph_.ops[producer];
      const bool quantizes_output = std::any_of(
          walked.output_sites.begin(), walked.output_sites.end(),
          [&](int site) { return placement_.quantizer_at(site) == quantizer; });
      if (quantizes_output || walked.inputs.empty() ||
          placement_.quantizer_at(walked.input_sites.front()) == quantizer) {
        break;
      }
      producer = graph_.tensors[walked.inputs.front()].producer;
    }
    return path;
  }

  // Quantizers downstream that decide the grid of `tensor`: those of its
  // readers' inputs, or of the supergroup that its one reader ends.
  void add_readers(int tensor, QuantizerRoute& route) const {
    const bool fused = is_fused(tensor);
    for (const graph::Use& use : graph_.tensors[tensor].uses) {
      const graph::Op& reader = graph_.ops[use.op];
      const int at_input =
          placement_.quantizer_at(reader.input_sites[use.slot]);
      if (at_input != kNone) {
        route.quantizers.push_back(at_input);
        route.path.push_back(use.op);
        continue;
      }
      const bool passes_on =
          (placement_.keeps_precision(graph_, use.op) && use.slot == 0) ||
          (fused && reader.role == graph::OpRole::compute);
      if (!passes_on || reader.outputs.empty()) continue;
      route.path.push_back(use.op);
      const int at_output =
          placement_.quantizer_at(reader.output_sites.front());
      if (at_output != kNone) {
        route.quantizers.push_back(at_output);
      } else {
        add_readers(reader.outputs.front(), route);
      }
    }
  }

  const graph::OpGraph& graph_;
  const config::Placement& placement_;
};

void add_leaf_uses(const graph::OpGraph& graph, int tensor,
                   std::vector<graph::Use>& found) {
  for (const graph::Use& use : graph.tensors[tensor].uses) {
    const graph::Op& reader = graph.ops[use.op];
    if (reader.call != kNone) {
      found.push_back(use);
    } else if (reader.role == graph::OpRole::grid_preserving) {
      for (const int output : reader.outputs) {
        add_leaf_uses(graph, output, found);
      }
    }
  }
}

}  // namespace

QuantizerRoute route_of_input(const graph::OpGraph& graph,
                              const config::Placement& placement, int op,
                              int slot) {
  return RouteFinder(graph, placement).input(op, slot);
}

QuantizerRoute route_of_output(const graph::OpGraph& graph,
                               const config::Placement& placement, int op,
                               int slot) {
  return RouteFinder(graph, placement).output(op, slot);
}

std::vector<graph::Use> leaf_uses(const graph::OpGraph& graph, int tensor) {
  std::vector<graph::Use> found;
  add_leaf_uses(graph, tensor, found);
  return found;
}

int tensor_of_leaf(const graph::OpGraph& graph, int tensor) {
  int producer = graph.tensors[tensor].producer;
  while (producer != kNone && graph.ops[producer].call == kNone &&
         graph.ops[producer].role == graph::OpRole::grid_preserving &&
         !graph.ops[producer].inputs.empty()) {
    tensor = graph.ops[producer].inputs.front();
    producer = graph.tensors[tensor].producer;
  }
  return tensor;
}

}  // namespace aimetpp::mixed
