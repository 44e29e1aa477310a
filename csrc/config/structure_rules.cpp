// SPDX-License-Identifier: BSD-3-Clause
// The sections that look at how ops are connected: supergroups, model_input,
// model_output.
#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include "config/hardware_rules.h"
#include "config/rule_sheet.h"
#include "config/supergroups.h"
#include "core/text.h"
#include "fold/batch_norm_folds.h"

namespace aimetpp::config {

using graph::kNone;
using graph::Op;
using graph::OpGraph;
using graph::OpRole;
using graph::Origin;

namespace {

// Also what a creation op (torch.zeros, arange) makes: the same in every run.
bool is_constant(const OpGraph& graph, const graph::Tensor& tensor) {
  return tensor.origin == Origin::constant ||
         (tensor.origin == Origin::op &&
          graph.ops[tensor.producer].role == OpRole::metadata);
}

// An op that puts its inputs on one grid reads the values of `tensor`.
bool is_tied_downstream(const OpGraph& graph, const QuantConfig& config,
                        int tensor) {
  return std::ranges::any_of(
      graph.tensors[tensor].uses, [&](const graph::Use& use) {
        const Op& op = graph.ops[use.op];
        if (op.role == OpRole::grid_preserving) {
          return use.slot == 0 &&
                 std::ranges::any_of(op.outputs, [&](int output) {
                   return is_tied_downstream(graph, config, output);
                 });
        }
        return num_tied_inputs(op, config.defaults.hw_version) > 0;
      });
}

// The config speaks of this op's results in particular.
bool is_named(const Op& op, const QuantConfig& config) {
  return std::ranges::any_of(op_rules_of(op, config), [](const auto* entry) {
    return entry->second.is_output_quantized.value_or(false) ||
           entry->second.encoding_constraints.has_value();
  });
}

}  // namespace

void apply_batch_norm_folds(const OpGraph& graph, RuleSheet& sheet) {
  for (const auto& [first, second] : fold::foldable_batch_norms(graph)) {
    const Op& op = graph.ops[first];
    const Op& batch_norm = graph.ops[second];
    const int before = sheet.output_site(op.outputs.front());
    const int after = sheet.output_site(batch_norm.outputs.front());
    if (before == kNone || after == kNone) {
      continue;
    }
    const std::string rule = batch_norm.name + " folds into " + op.name;
    sheet.take_over(before, after, "supergroups", rule,
                    "as " + op.name + " was");
    sheet.set_off(before, "supergroups", rule,
                  "the result is at " + batch_norm.name);
    for (const graph::Param& param : batch_norm.params) {
      if (param.site != kNone) {
        sheet.set_off(param.site, "supergroups", rule, "part of " + op.name);
      }
    }
  }
}

void apply_supergroups(const OpGraph& graph, const QuantConfig& config,
                       const std::vector<Supergroup>& supergroups,
                       RuleSheet& sheet) {
  for (const Supergroup& group : supergroups) {
    const std::string rule = "supergroups[" + std::to_string(group.pattern) +
                             "] [" + join(config.supergroups[group.pattern]) +
                             "]";
    const Op& last = graph.ops[group.ops.back()];
    const std::string why = "the result of the chain is at " + last.name;
    for (std::size_t i = 0; i + 1 < group.ops.size(); ++i) {
      const int inside = graph.ops[group.ops[i]].outputs.front();
      if (const int site = sheet.output_site(inside); site != kNone) {
        sheet.set_off(site, "supergroups", rule, why);
      }
      const Op& reader = graph.ops[group.ops[i + 1]];
      for (std::size_t slot = 0; slot < reader.inputs.size(); ++slot) {
        if (reader.inputs[slot] == inside &&
            reader.input_sites[slot] != kNone) {
          sheet.set_off(reader.input_sites[slot], "supergroups", rule, why);
        }
      }
    }
    for (const int output : last.outputs) {
      if (const int site = sheet.output_site(output); site != kNone) {
        sheet.log(site, "supergroups", rule, "as it was: result of the chain");
      }
    }
  }
}

void apply_model_input(const OpGraph& graph, RuleSheet& sheet) {
  const int num_tensors = static_cast<int>(graph.tensors.size());
  for (int index = 0; index < num_tensors; ++index) {
    const graph::Tensor& tensor = graph.tensors[index];
    if (!tensor.is_floating || sheet.is_single_number(index)) {
      continue;
    }
    std::string what = "constant";
    if (tensor.origin == Origin::model_input) {
      what = "model input " + std::to_string(tensor.model_input);
    } else if (tensor.origin == Origin::parameter) {
      what = "parameter or buffer";
    } else if (!is_constant(graph, tensor)) {
      continue;
    }
    sheet.set_readers(index, true, "model_input",
                      "is_input_quantized (" + what + ")");
  }
}

void apply_model_output(const OpGraph& graph, RuleSheet& sheet) {
  for (const int index : graph.model_outputs) {
    const graph::Tensor& tensor = graph.tensors[index];
    const ValueOrigin origin = sheet.value_origin(index);
    if (origin.site != kNone || !tensor.is_floating) {
      continue;
    }
    int site = sheet.output_site(origin.tensor);
    if (site == kNone && tensor.origin == Origin::op) {
      // A model input that is only moved: quantized where it is first moved,
      // so that it shares the quantizer of its other readers.
      const Op& last = graph.ops[tensor.producer];
      const bool moves = last.role == OpRole::grid_preserving;
      site = moves && !last.inputs.empty() ? last.input_sites.front()
                                           : sheet.output_site(index);
    }
    if (site != kNone) {
      sheet.set_on(site, "model_output", "is_output_quantized");
    }
  }
}

std::set<int> apply_rescales(const OpGraph& graph, const QuantConfig& config,
                             RuleSheet& sheet) {
  std::set<int> rescales;
  const auto is_on = [&](int site) { return sheet[site].on; };
  const auto passes = [&](int op) {
    return graph.ops[op].role == OpRole::grid_preserving ||
           rescales.contains(op);
  };
  for (int index = 0; index < static_cast<int>(graph.ops.size()); ++index) {
    const Op& op = graph.ops[index];
    if (!op.rescale || op.inputs.empty() || op.outputs.size() != 1 ||
        is_named(op, config)) {
      continue;
    }
    const int output = sheet.output_site(op.outputs.front());
    if (output == kNone || !sheet[output].on ||
        is_tied_downstream(graph, config, op.outputs.front())) {
      continue;
    }
    int source = op.input_sites.front();
    if (source == kNone || !sheet[source].on) {
      source = find_value_origin(graph, op.inputs.front(), is_on, passes).site;
    }
    if (source == kNone) {
      continue;
    }
    sheet.set_off(output, "graph", "constant factor",
                  concat("the grid of ", graph.site_name(source), " times ",
                         *op.rescale));
    rescales.insert(index);
  }
  return rescales;
}

}  // namespace aimetpp::config
