// SPDX-License-Identifier: BSD-3-Clause
// The sections that look at how ops are connected: supergroups, model_input,
// model_output.
#include <string>
#include <vector>

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

// Running mean and variance of a functional batch norm: part of its parameters,
// which hardware folds, and no activations.
bool is_statistic(const Op& op, int slot) {
  return slot > 0 && (op.onnx_type == "BatchNormalization" ||
                      op.onnx_type == "InstanceNormalization");
}

// Turns on the input sites at which the values of `tensor` are read. Behind an
// op that quantizes them anew they are no longer the same values.
void quantize_readers(const OpGraph& graph, int tensor, const std::string& rule,
                      RuleSheet& sheet) {
  std::vector<int> pending = {tensor};
  while (!pending.empty()) {
    const int current = pending.back();
    pending.pop_back();
    for (const graph::Use& use : graph.tensors[current].uses) {
      const Op& op = graph.ops[use.op];
      if (op.role == OpRole::grid_preserving && use.slot == 0) {
        for (const int output : op.outputs) {
          const int site = sheet.output_site(output);
          if (site == kNone || !sheet[site].on) {
            pending.push_back(output);
          }
        }
      } else if (op.role != OpRole::metadata && !is_statistic(op, use.slot) &&
                 op.input_sites[use.slot] != kNone) {
        sheet.set_on(op.input_sites[use.slot], "model_input", rule);
      }
    }
  }
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
    quantize_readers(graph, index, "is_input_quantized (" + what + ")", sheet);
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

}  // namespace aimetpp::config
