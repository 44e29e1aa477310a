// SPDX-License-Identifier: BSD-3-Clause
// What the sections of a config say of each site, while they are being applied.
// Internal to config/: place_quantizers joins the sites into quantizers.
#pragma once

#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "config/placement.h"
#include "config/quant_config.h"
#include "graph/op_graph.h"

namespace aimetpp::config {

struct SiteSettings {
  bool on = false;
  bool symmetric = false;
  bool symmetric_by_op_type = false;  // rather than by a default
  std::optional<EncodingConstraints> constraints;
  int channel_axis = graph::kNone;
};

// Where the values of a tensor last met a quantizer: the nearest input or
// output site that is on, looking upstream through grid-preserving ops. Where
// there is none, `site` is kNone and `tensor` holds the values as they were
// made.
struct ValueOrigin {
  int site = graph::kNone;
  int tensor = graph::kNone;
};

// `is_on(site)` says whether a site has a quantizer, `passes(op)` whether the
// search goes on at the op's first input.
template <typename IsOn, typename Passes>
ValueOrigin find_value_origin(const graph::OpGraph& graph, int tensor,
                              const IsOn& is_on, const Passes& passes) {
  while (graph.tensors[tensor].origin == graph::Origin::op) {
    const int producer = graph.tensors[tensor].producer;
    const graph::Op& op = graph.ops[producer];
    for (std::size_t k = 0; k < op.outputs.size(); ++k) {
      if (op.outputs[k] == tensor && op.output_sites[k] != graph::kNone &&
          is_on(op.output_sites[k])) {
        return {op.output_sites[k], tensor};
      }
    }
    if (op.inputs.empty() || !passes(producer)) {
      break;
    }
    if (op.input_sites.front() != graph::kNone &&
        is_on(op.input_sites.front())) {
      return {op.input_sites.front(), op.inputs.front()};
    }
    tensor = op.inputs.front();
  }
  return {graph::kNone, tensor};
}

// The state of every site and the log of what changed it. A site that can't be
// quantized (not a floating-point tensor, never reached) ignores every rule.
class RuleSheet {
 public:
  explicit RuleSheet(const graph::OpGraph& graph);

  [[nodiscard]] const SiteSettings& operator[](int site) const {
    return settings_[site];
  }
  [[nodiscard]] std::vector<std::vector<RuleEffect>> take_log() {
    return std::move(log_);
  }

  // `why` may be empty.
  void set_on(int site, const std::string& section, const std::string& rule,
              const std::string& why = "");
  void set_off(int site, const std::string& section, const std::string& rule,
               const std::string& why = "");
  void set_on_or_off(int site, bool on, const std::string& section,
                     const std::string& rule, const std::string& why = "");
  void set_symmetric(int site, bool symmetric, bool by_op_type,
                     const std::string& section, const std::string& rule);
  void constrain(int site, const EncodingConstraints& constraints,
                 const std::string& section, const std::string& rule);
  void set_channel_axis(int site, int axis, const std::string& section,
                        const std::string& rule);
  // What a site of the same fused op was told replaces what `to` was told.
  void take_over(int from, int to, const std::string& section,
                 const std::string& rule, const std::string& why);
  // Sets the input sites at which the values of `tensor` are read, seen through
  // grid-preserving ops. Behind an op that quantizes them anew they are no
  // longer the same values.
  void set_readers(int tensor, bool on, const std::string& section,
                   const std::string& rule, const std::string& why = "");
  // An effect that changes no setting. A repetition (the second call of a
  // reused module) moves the earlier entry to the end.
  void log(int site, const std::string& section, const std::string& rule,
           const std::string& effect);

  // The quantizable site at which a tensor leaves the op that made it, or
  // kNone.
  [[nodiscard]] int output_site(int tensor) const;
  [[nodiscard]] ValueOrigin value_origin(int tensor) const;
  // A single number, such as the 2 in `x * 2`: part of the op that reads it.
  [[nodiscard]] bool is_single_number(int tensor) const;

 private:
  void exclude_masks();
  void exclude_mask(int site);

  const graph::OpGraph& graph_;
  std::vector<SiteSettings> settings_;        // by site
  std::vector<std::vector<RuleEffect>> log_;  // by site
  std::vector<bool> quantizable_;             // by site
};

// The entries of `op_type` that govern an op, those with the last word last: of
// its own ONNX type and, before it, of a type that it may also be exported as
// (MatMul for a linear layer, AveragePool for one that pools to one element).
std::vector<const std::pair<const std::string, OpRule>*> op_rules_of(
    const graph::Op& op, const QuantConfig& config);

// The sections, in the order in which place_quantizers applies them.
void apply_defaults(const graph::OpGraph& graph, const QuantConfig& config,
                    RuleSheet& sheet);
void apply_params(const graph::OpGraph& graph, const QuantConfig& config,
                  RuleSheet& sheet);
void apply_op_types(const graph::OpGraph& graph, const QuantConfig& config,
                    RuleSheet& sheet);
void apply_batch_norm_folds(const graph::OpGraph& graph, RuleSheet& sheet);
void apply_supergroups(const graph::OpGraph& graph, const QuantConfig& config,
                       const std::vector<Supergroup>& supergroups,
                       RuleSheet& sheet);
void apply_model_input(const graph::OpGraph& graph, RuleSheet& sheet);
void apply_model_output(const graph::OpGraph& graph, RuleSheet& sheet);

// Behind all sections: turns off the outputs that are a constant multiple of a
// quantized tensor, unless op_type asks for them, or a concatenation needs them
// on its own grid. Returns the ops that make them.
std::set<int> apply_rescales(const graph::OpGraph& graph,
                             const QuantConfig& config, RuleSheet& sheet);

}  // namespace aimetpp::config
