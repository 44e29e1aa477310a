// SPDX-License-Identifier: BSD-3-Clause
// The sections that look at one op at a time: defaults, params, op_type.
#include <map>
#include <string>
#include <utility>

#include "config/params.h"
#include "config/rule_sheet.h"

namespace aimetpp::config {

using graph::kNone;
using graph::Op;
using graph::OpGraph;

namespace {

// The entry that governs the parameter `name`: its own, or that of "bias" for
// any name that contains it. nullptr where there is none.
const std::pair<const std::string, ParamRule>* find_param_rule(
    const std::map<std::string, ParamRule>& rules, const std::string& name) {
  auto found = rules.find(name);
  if (found == rules.end() && is_bias(name)) {
    found = rules.find("bias");
  }
  return found == rules.end() ? nullptr : &*found;
}

void apply_param_rule(int site, const ParamRule& rule, bool by_op_type,
                      const std::string& section, const std::string& name,
                      RuleSheet& sheet) {
  if (rule.is_quantized) {
    sheet.set_on_or_off(site, *rule.is_quantized, section,
                        name + ".is_quantized");
  }
  if (rule.is_symmetric) {
    sheet.set_symmetric(site, *rule.is_symmetric, by_op_type, section,
                        name + ".is_symmetric");
  }
}

// Turns on what `op` reads at `slot`: the quantizer its values have met, else a
// new one where they are made, else one at the op's own input site.
void quantize_input(const Op& op, std::size_t slot, const std::string& type,
                    const OpRule& rule, RuleSheet& sheet) {
  if (sheet.is_single_number(op.inputs[slot])) {
    return;
  }
  const ValueOrigin origin = sheet.value_origin(op.inputs[slot]);
  int site = origin.site;
  if (site == kNone) {
    site = sheet.output_site(origin.tensor);
  }
  if (site == kNone) {
    site = op.input_sites[slot];
  }
  if (site == kNone) {
    return;
  }
  sheet.set_on(site, "op_type", type + ".is_input_quantized",
               "read by " + op.name);
  if (rule.is_symmetric) {
    sheet.set_symmetric(site, *rule.is_symmetric, true, "op_type",
                        type + ".is_symmetric");
  }
}

void apply_op_type_to_inputs(const Op& op, const std::string& type,
                             const OpRule& rule, RuleSheet& sheet) {
  if (rule.is_input_quantized.value_or(false)) {
    for (std::size_t slot = 0; slot < op.inputs.size(); ++slot) {
      quantize_input(op, slot, type, rule, sheet);
    }
  }
  for (const int site : op.input_sites) {
    if (site != kNone && rule.is_symmetric) {
      sheet.set_symmetric(site, *rule.is_symmetric, true, "op_type",
                          type + ".is_symmetric");
    }
  }
}

void apply_op_type_to_outputs(const Op& op, const std::string& type,
                              const OpRule& rule, RuleSheet& sheet) {
  for (const int site : op.output_sites) {
    if (site == kNone) {
      continue;
    }
    if (rule.is_output_quantized) {
      sheet.set_on_or_off(site, *rule.is_output_quantized, "op_type",
                          type + ".is_output_quantized");
    }
    if (rule.is_symmetric) {
      sheet.set_symmetric(site, *rule.is_symmetric, true, "op_type",
                          type + ".is_symmetric");
    }
    if (rule.encoding_constraints) {
      sheet.constrain(site, *rule.encoding_constraints, "op_type",
                      type + ".encoding_constraints");
    }
  }
}

void apply_op_type_to_params(const OpGraph& graph, const Op& op,
                             const std::string& type, const OpRule& rule,
                             RuleSheet& sheet) {
  for (const graph::Param& param : op.params) {
    if (param.site == kNone) {
      continue;
    }
    if (const auto* entry = find_param_rule(rule.params, param.name)) {
      apply_param_rule(param.site, entry->second, true, "op_type",
                       type + ".params." + entry->first, sheet);
    }
    if (rule.per_channel_quantization) {
      const int axis = *rule.per_channel_quantization
                           ? channel_axis_of(graph, op, param)
                           : kNone;
      sheet.set_channel_axis(param.site, axis, "op_type",
                             type + ".per_channel_quantization");
    }
  }
}

// Of an op without sites: its results are quantized where they are read.
void apply_op_type_to_readers(const Op& op, const std::string& type,
                              const OpRule& rule, RuleSheet& sheet) {
  if (!rule.is_output_quantized) {
    return;
  }
  for (const int output : op.outputs) {
    sheet.set_readers(output, *rule.is_output_quantized, "op_type",
                      type + ".is_output_quantized", "made by " + op.name);
  }
}

}  // namespace

std::vector<const std::pair<const std::string, OpRule>*> op_rules_of(
    const Op& op, const QuantConfig& config) {
  std::vector<const std::pair<const std::string, OpRule>*> rules;
  const auto add = [&](const std::string& type) {
    if (const auto found = config.op_type.find(type);
        found != config.op_type.end()) {
      rules.push_back(&*found);
    }
  };
  if (op.kind == "linear") {
    add("MatMul");
  } else if (op.onnx_type == "GlobalAveragePool") {
    add("AveragePool");
  } else if (op.onnx_type == "GlobalMaxPool") {
    add("MaxPool");
  }
  add(op.onnx_type);
  return rules;
}

void apply_defaults(const OpGraph& graph, const QuantConfig& config,
                    RuleSheet& sheet) {
  const Defaults& defaults = config.defaults;
  const auto set_symmetric = [&](int site) {
    if (defaults.ops_is_symmetric) {
      sheet.set_symmetric(site, *defaults.ops_is_symmetric, false, "defaults",
                          "ops.is_symmetric");
    }
  };
  for (const Op& op : graph.ops) {
    for (const int site : op.input_sites) {
      if (site != kNone) {
        sheet.set_off(site, "defaults", "inputs", "quantized where it is made");
        set_symmetric(site);
      }
    }
    for (const int site : op.output_sites) {
      if (site == kNone) {
        continue;
      }
      if (op.role == graph::OpRole::grid_preserving) {
        sheet.set_off(site, "defaults", "ops.is_output_quantized",
                      op.kind + " keeps the grid of its input");
      } else {
        sheet.set_on_or_off(site,
                            defaults.ops_is_output_quantized.value_or(false),
                            "defaults", "ops.is_output_quantized");
      }
      set_symmetric(site);
    }
    for (const graph::Param& param : op.params) {
      if (param.site == kNone) {
        continue;
      }
      apply_param_rule(param.site, defaults.params, false, "defaults", "params",
                       sheet);
      if (defaults.per_channel_quantization) {
        sheet.set_channel_axis(param.site, channel_axis_of(graph, op, param),
                               "defaults", "per_channel_quantization");
      }
    }
  }
  for (const Op& op : graph.ops) {
    const bool has_no_site =
        op.call == kNone && op.role == graph::OpRole::compute;
    if (!has_no_site || !defaults.ops_is_output_quantized.value_or(false)) {
      continue;
    }
    for (const int output : op.outputs) {
      sheet.set_readers(output, true, "defaults", "ops.is_output_quantized",
                        "made by " + op.name);
    }
  }
}

void apply_params(const OpGraph& graph, const QuantConfig& config,
                  RuleSheet& sheet) {
  for (const Op& op : graph.ops) {
    for (const graph::Param& param : op.params) {
      const auto* entry = find_param_rule(config.params, param.name);
      if (entry != nullptr && param.site != kNone) {
        apply_param_rule(param.site, entry->second, false, "params",
                         entry->first, sheet);
      }
    }
  }
}

void apply_op_types(const OpGraph& graph, const QuantConfig& config,
                    RuleSheet& sheet) {
  for (const Op& op : graph.ops) {
    for (const auto* entry : op_rules_of(op, config)) {
      const auto& [type, rule] = *entry;
      if (op.call == kNone) {
        apply_op_type_to_readers(op, type, rule, sheet);
        continue;
      }
      apply_op_type_to_outputs(op, type, rule, sheet);
      apply_op_type_to_inputs(op, type, rule, sheet);
      apply_op_type_to_params(graph, op, type, rule, sheet);
    }
  }
}

}  // namespace aimetpp::config
