// SPDX-License-Identifier: BSD-3-Clause
#include "config/rule_sheet.h"

#include <algorithm>
#include <sstream>

namespace aimetpp::config {

using graph::kNone;
using graph::Op;
using graph::OpRole;
using graph::Origin;

namespace {

std::string to_text(const EncodingConstraints& constraints) {
  std::ostringstream text;
  const auto bound = [&text](const std::optional<double>& value) {
    value ? text << *value : text << "free";
  };
  text << "[";
  bound(constraints.min);
  text << ", ";
  bound(constraints.max);
  text << "]";
  return text.str();
}

// Running mean and variance of a functional batch norm: part of its parameters,
// which hardware folds, and no activations.
bool is_statistic(const Op& op, int slot) {
  return slot > 0 && (op.onnx_type == "BatchNormalization" ||
                      op.onnx_type == "InstanceNormalization");
}

std::string with_reason(const std::string& effect, const std::string& why) {
  return why.empty() ? effect : effect + ": " + why;
}

}  // namespace

RuleSheet::RuleSheet(const graph::OpGraph& graph)
    : graph_(graph),
      settings_(graph.sites.size()),
      log_(graph.sites.size()),
      quantizable_(graph.sites.size(), false) {
  for (const int site : sites_in_graph_order(graph)) {
    quantizable_[site] = true;
  }
  for (std::size_t site = 0; site < graph.sites.size(); ++site) {
    if (!quantizable_[site]) {
      log(static_cast<int>(site), "graph", "reachability",
          "off: the traced forward did not come here");
    }
  }
  exclude_masks();
  for (const Op& op : graph.ops) {
    for (std::size_t k = 0; k < op.outputs.size(); ++k) {
      const int site = op.output_sites[k];
      if (site == kNone) {
        continue;
      }
      if (!graph.tensors[op.outputs[k]].is_floating) {
        quantizable_[site] = false;
        log(site, "graph", "dtype", "off: not a floating-point tensor");
      } else if (op.role == graph::OpRole::metadata) {
        quantizable_[site] = false;
        log(site, "graph", "role",
            "off: a constant, quantized where it is read");
      }
    }
  }
}

void RuleSheet::exclude_masks() {
  for (const Op& op : graph_.ops) {
    for (int slot = 0; slot < static_cast<int>(op.inputs.size()); ++slot) {
      if (op.mask_slot == slot || graph_.tensors[op.inputs[slot]].is_mask) {
        exclude_mask(op.input_sites[slot]);
      }
    }
    for (std::size_t k = 0; k < op.outputs.size(); ++k) {
      if (graph_.tensors[op.outputs[k]].is_mask) {
        exclude_mask(op.output_sites[k]);
      }
    }
  }
}

void RuleSheet::exclude_mask(int site) {
  if (site == kNone) return;
  quantizable_[site] = false;
  log(site, "graph", "mask",
      "off: a mask, which is 0 or so low that softmax makes it 0");
}

void RuleSheet::log(int site, const std::string& section,
                    const std::string& rule, const std::string& effect) {
  std::vector<RuleEffect>& entries = log_[site];
  RuleEffect entry{section, rule, effect};
  std::erase(entries, entry);
  entries.push_back(std::move(entry));
}

void RuleSheet::set_on(int site, const std::string& section,
                       const std::string& rule, const std::string& why) {
  set_on_or_off(site, true, section, rule, why);
}

void RuleSheet::set_off(int site, const std::string& section,
                        const std::string& rule, const std::string& why) {
  set_on_or_off(site, false, section, rule, why);
}

void RuleSheet::set_on_or_off(int site, bool on, const std::string& section,
                              const std::string& rule, const std::string& why) {
  if (quantizable_[site]) {
    settings_[site].on = on;
    log(site, section, rule, with_reason(on ? "on" : "off", why));
  }
}

void RuleSheet::set_symmetric(int site, bool symmetric, bool by_op_type,
                              const std::string& section,
                              const std::string& rule) {
  if (quantizable_[site]) {
    settings_[site].symmetric = symmetric;
    settings_[site].symmetric_by_op_type = by_op_type;
    log(site, section, rule, symmetric ? "symmetric" : "asymmetric");
  }
}

void RuleSheet::constrain(int site, const EncodingConstraints& constraints,
                          const std::string& section, const std::string& rule) {
  if (quantizable_[site]) {
    settings_[site].constraints = constraints;
    log(site, section, rule, "constrained to " + to_text(constraints));
  }
}

void RuleSheet::set_channel_axis(int site, int axis, const std::string& section,
                                 const std::string& rule) {
  if (quantizable_[site] && settings_[site].channel_axis != axis) {
    settings_[site].channel_axis = axis;
    log(site, section, rule,
        axis == kNone ? "per-tensor"
                      : "per-channel along axis " + std::to_string(axis));
  }
}

void RuleSheet::take_over(int from, int to, const std::string& section,
                          const std::string& rule, const std::string& why) {
  const SiteSettings source = settings_[from];
  set_on_or_off(to, source.on, section, rule, why);
  if (source.symmetric_by_op_type) {
    set_symmetric(to, source.symmetric, true, section, rule);
  }
  if (source.constraints) {
    constrain(to, *source.constraints, section, rule);
  }
}

void RuleSheet::set_readers(int tensor, bool on, const std::string& section,
                            const std::string& rule, const std::string& why) {
  std::vector<int> pending = {tensor};
  while (!pending.empty()) {
    const int current = pending.back();
    pending.pop_back();
    for (const graph::Use& use : graph_.tensors[current].uses) {
      const Op& op = graph_.ops[use.op];
      if (op.role == OpRole::grid_preserving && use.slot == 0) {
        for (const int output : op.outputs) {
          const int site = output_site(output);
          if (site == kNone || !settings_[site].on) {
            pending.push_back(output);
          }
        }
      } else if (op.role != OpRole::metadata && !is_statistic(op, use.slot) &&
                 op.input_sites[use.slot] != kNone) {
        set_on_or_off(op.input_sites[use.slot], on, section, rule, why);
      }
    }
  }
}

int RuleSheet::output_site(int tensor) const {
  if (graph_.tensors[tensor].origin != Origin::op) {
    return kNone;
  }
  const Op& op = graph_.ops[graph_.tensors[tensor].producer];
  for (std::size_t k = 0; k < op.outputs.size(); ++k) {
    const int site = op.output_sites[k];
    if (op.outputs[k] == tensor && site != kNone && quantizable_[site]) {
      return site;
    }
  }
  return kNone;
}

ValueOrigin RuleSheet::value_origin(int tensor) const {
  return find_value_origin(
      graph_, tensor, [this](int site) { return settings_[site].on; },
      [this](int op) {
        return graph_.ops[op].role == OpRole::grid_preserving;
      });
}

bool RuleSheet::is_single_number(int tensor) const {
  const graph::Tensor& t = graph_.tensors[tensor];
  const bool varies = t.origin == Origin::model_input ||
                      (t.origin == Origin::op &&
                       graph_.ops[t.producer].role != graph::OpRole::metadata);
  return !varies &&
         std::ranges::all_of(t.shape, [](auto size) { return size == 1; });
}

}  // namespace aimetpp::config
