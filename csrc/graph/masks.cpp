// SPDX-License-Identifier: BSD-3-Clause
#include "graph/masks.h"

#include <algorithm>
#include <array>
#include <limits>
#include <string_view>
#include <utility>

namespace aimetpp::graph {
namespace {

constexpr float kMasks = -50;
constexpr float kMasksAmongOthers = -5000;
// Where the traced mask hid nothing, and for numbers far below: -1e4 divided by
// a temperature is still masked.
constexpr double kDefaultMaskedBelow = -1000;

// Values pass these element by element.
constexpr std::array<std::string_view, 11> kElementwise = {
    "add",     "add_bias", "sub",   "mul",       "div",      "where",
    "maximum", "minimum",  "clamp", "clamp_min", "clamp_max"};

bool is_softmax(const Op& op) {
  return op.kind == "softmax" || op.kind == "log_softmax";
}

bool is_elementwise(const Op& op) {
  return std::ranges::find(kElementwise, op.kind) != kElementwise.end();
}

// True where values read at `slot` are among the results, moved or combined.
bool passes(const Op& op, int slot) {
  return op.role == OpRole::grid_preserving ? slot == 0 : is_elementwise(op);
}

void lower_bound(std::optional<double>& masked_below,
                 const std::optional<double>& other) {
  if (other) masked_below = std::max(masked_below.value_or(*other), *other);
}

class MaskFinder {
 public:
  explicit MaskFinder(OpGraph& graph)
      : graph_(graph),
        reaches_softmax_(graph.tensors.size(), false),
        is_learned_(graph.tensors.size(), false) {}

  void run() {
    find_ways_to_softmax();
    for (int index = 0; index < num_ops(); ++index) {
      Op& op = graph_.ops[index];
      note_learned(op);
      note_mask_of_module(op);
      if (!reaches_softmax(op)) continue;
      apply_mask(index);
      pass_on_masked(op);
    }
    for (int index = num_ops() - 1; index >= 0; --index) {
      for (const int tensor : graph_.ops[index].inputs) note_mask(tensor);
    }
  }

 private:
  [[nodiscard]] int num_ops() const {
    return static_cast<int>(graph_.ops.size());
  }

  [[nodiscard]] bool reaches_softmax(const Op& op) const {
    return std::ranges::any_of(
        op.outputs, [&](int tensor) { return reaches_softmax_[tensor]; });
  }

  void find_ways_to_softmax() {
    for (int index = num_ops() - 1; index >= 0; --index) {
      const Op& op = graph_.ops[index];
      const bool reaches = is_softmax(op) || reaches_softmax(op);
      for (int slot = 0; slot < static_cast<int>(op.inputs.size()); ++slot) {
        if (reaches && (is_softmax(op) || passes(op, slot))) {
          reaches_softmax_[op.inputs[slot]] = true;
        }
      }
    }
  }

  // Computed from parameters: a bias that happens to be 0 is no mask.
  void note_learned(const Op& op) {
    for (const int tensor : op.inputs) {
      if (graph_.tensors[tensor].origin == Origin::parameter) {
        is_learned_[tensor] = true;
      }
    }
    const bool learned =
        !op.params.empty() || std::ranges::any_of(op.inputs, [&](int tensor) {
          return is_learned_[tensor];
        });
    for (const int tensor : op.outputs) is_learned_[tensor] = learned;
  }

  [[nodiscard]] MaskFacts facts_at(const Op& op, int slot) const {
    const int site = op.input_sites[slot];
    return site == kNone ? MaskFacts{} : graph_.sites[site].mask;
  }

  [[nodiscard]] bool masks_at(const Op& op, int slot) const {
    const MaskValues values = facts_at(op, slot).values;
    return values == MaskValues::mask ||
           (values == MaskValues::zeros && !is_learned_[op.inputs[slot]]);
  }

  // A module that applies a mask inside: nothing is known of how, so the mask
  // is told by its values alone. Zeros may be one that hides nothing yet.
  void note_mask_of_module(Op& op) {
    if (op.call == kNone || graph_.calls[op.call].functional) return;
    for (int slot = 0; slot < static_cast<int>(op.inputs.size()); ++slot) {
      const MaskFacts facts = facts_at(op, slot);
      if (!masks_at(op, slot)) continue;
      if (facts.values == MaskValues::zeros) {
        lower_bound(graph_.tensors[op.inputs[slot]].masked_below,
                    double{kMasksAmongOthers});
      } else if (facts.masked_below <= kDefaultMaskedBelow &&
                 op.mask_slot == kNone) {
        op.mask_slot = slot;
      }
    }
  }

  // Of two masks the second one is added to the first.
  void apply_mask(int index) {
    Op& op = graph_.ops[index];
    const bool combines = op.kind == "add" || op.kind == "add_bias" ||
                          op.kind == "sub" || op.kind == "where";
    if (combines && op.inputs.size() == 1 && !op.params.empty() &&
        masks_at(op, 0)) {
      op.mask_slot = 0;  // bias + mask: quantized, as a sum of the bias
    }
    if (!combines || op.inputs.size() != 2) return;
    const bool swapped = !masks_at(op, 1);
    if (swapped && !masks_at(op, 0)) return;
    if (swapped) {
      std::swap(op.inputs[0], op.inputs[1]);
      std::swap(op.input_sites[0], op.input_sites[1]);
      swap_uses(index, op.inputs);
    }
    op.mask_slot = 1;
    op.role = OpRole::grid_preserving;
    op.onnx_type = op.kind == "where" ? "Where" : "";
    op.kind = op.kind == "where" ? "masked_fill" : "mask_add";
  }

  void swap_uses(int index, const std::vector<int>& inputs) {
    for (int slot = 0; slot < 2; ++slot) {
      for (Use& use : graph_.tensors[inputs[slot]].uses) {
        if (use.op == index) use.slot = slot;
      }
    }
  }

  // What is masked among an op's inputs is so among its outputs.
  void pass_on_masked(const Op& op) {
    std::optional<double> masked_below;
    if (op.kind == "masked_fill") masked_below = kDefaultMaskedBelow;
    for (int slot = 0; slot < static_cast<int>(op.inputs.size()); ++slot) {
      Tensor& input = graph_.tensors[op.inputs[slot]];
      const MaskFacts facts = facts_at(op, slot);
      if (slot == op.mask_slot || facts.values == MaskValues::some) {
        lower_bound(input.masked_below, facts.values == MaskValues::zeros
                                            ? kDefaultMaskedBelow
                                            : facts.masked_below);
      }
      if (slot == op.mask_slot || passes(op, slot)) {
        lower_bound(masked_below, input.masked_below);
      }
    }
    for (const int tensor : op.outputs) {
      lower_bound(graph_.tensors[tensor].masked_below, masked_below);
    }
  }

  // Where every reader applies it as a mask or computes a mask of it.
  void note_mask(int index) {
    Tensor& tensor = graph_.tensors[index];
    if (tensor.is_model_output) return;
    tensor.is_mask = std::ranges::all_of(tensor.uses, [&](const Use& use) {
      const Op& op = graph_.ops[use.op];
      return use.slot == op.mask_slot ||
             (!op.outputs.empty() &&
              std::ranges::all_of(op.outputs, [&](int output) {
                return graph_.tensors[output].is_mask;
              }));
    });
  }

  OpGraph& graph_;
  std::vector<bool> reaches_softmax_;  // by tensor
  std::vector<bool> is_learned_;       // by tensor
};

}  // namespace

MaskFacts classify_mask(const float* values, std::int64_t size, bool negated) {
  constexpr float kNever = -std::numeric_limits<float>::infinity();
  float highest_mask = kNever;  // the highest of the low numbers
  float highest_far = kNever;   // ... that mask beside other values
  bool any_mask = false;
  bool any_far = false;
  bool others = false;
  for (std::int64_t i = 0; i < size; ++i) {
    const float value = negated ? -values[i] : values[i];
    if (value <= kMasks) {
      any_mask = true;
      highest_mask = std::max(highest_mask, value);
    } else {
      others |= value != 0;
    }
    if (value <= kMasksAmongOthers) {
      any_far = true;
      highest_far = std::max(highest_far, value);
    }
  }
  // Half of it, so that a masked score, which is a bit higher, is below.
  const auto bound = [](float mask) {
    return std::max(double{mask} / 2, kDefaultMaskedBelow);
  };
  if (!others) {
    if (any_mask) return {MaskValues::mask, bound(highest_mask)};
    return {size > 0 ? MaskValues::zeros : MaskValues::none, 0};
  }
  if (any_far) return {MaskValues::some, bound(highest_far)};
  return {};
}

void find_masks(OpGraph& graph) { MaskFinder(graph).run(); }

}  // namespace aimetpp::graph
