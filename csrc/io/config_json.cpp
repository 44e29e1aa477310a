// SPDX-License-Identifier: BSD-3-Clause
#include "io/config_json.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "graph/op_traits.h"
#include "io/json_node.h"

namespace aimetpp::io {
namespace {

using config::EncodingConstraints;
using config::OpRule;
using config::ParamRule;
using config::QuantConfig;
using config::SupportedKernel;

ParamRule read_param_rule(const JsonNode& node) {
  node.check_keys({"is_quantized", "is_symmetric"});
  return {node.optional_boolean("is_quantized"),
          node.optional_boolean("is_symmetric")};
}

// torch's names: "weight", "bias", those of recurrent layers ("weight_ih_l0")
// and of attention ("in_proj_weight").
bool is_param_name(std::string_view name) {
  return name == "weight" || name == "bias" || name.starts_with("weight_") ||
         name.starts_with("bias_") || name.ends_with("_weight") ||
         name.ends_with("_bias");
}

std::map<std::string, ParamRule> read_params(const JsonNode& node) {
  std::map<std::string, ParamRule> rules;
  for (const auto& [name, entry] : node.members()) {
    if (name == "running_mean" || name == "running_var") {
      if (read_param_rule(entry).is_quantized.value_or(false)) {
        entry.at("is_quantized")
            .fail_found(
                "false: running statistics are "
                "never quantized");
      }
      continue;
    }
    if (!is_param_name(name)) {
      entry.fail(
          "unknown parameter; allowed: weight, bias, running_mean, "
          "running_var, and names such as weight_ih_l0 and in_proj_weight");
    }
    rules[name] = read_param_rule(entry);
  }
  return rules;
}

// There are two: its exponent bits say which.
Precision read_float8(const JsonNode& node) {
  node.check_required({"bitwidth", "dtype", "exponent_bits"});
  const JsonNode bits_node = node.at("exponent_bits");
  const std::int64_t bits = bits_node.integer();
  if (bits != 4 && bits != 5) {
    bits_node.fail_found("for an 8-bit \"float\" 4 (e4m3) or 5 (e5m2)");
  }
  return bits == 4 ? Precision::fp8_e4m3() : Precision::fp8_e5m2();
}

Precision read_precision(const JsonNode& node) {
  node.check_keys({"bitwidth", "dtype", "exponent_bits"});
  node.check_required({"bitwidth", "dtype"});
  const JsonNode bitwidth_node = node.at("bitwidth");
  const JsonNode dtype_node = node.at("dtype");
  const std::string kDtypes = R"("int" or "float")";
  const std::string dtype = dtype_node.string(kDtypes);
  if (dtype != "int" && dtype != "float") {
    dtype_node.fail_found(kDtypes);
  }
  const std::int64_t bitwidth = bitwidth_node.integer();
  const bool is_float8 = dtype == "float" && bitwidth == 8;
  if (node.has("exponent_bits") && !is_float8) {
    node.at("exponent_bits").fail_found("exponent bits of 8-bit floats alone");
  }
  if (is_float8) return read_float8(node);
  if (dtype == "int") {
    if (bitwidth < Precision::kMinBitwidth ||
        bitwidth > Precision::kMaxBitwidth) {
      bitwidth_node.fail_found(
          "for \"int\" " + std::to_string(Precision::kMinBitwidth) + " to " +
          std::to_string(Precision::kMaxBitwidth));
    }
    return Precision::integer(static_cast<int>(bitwidth));
  }
  if (bitwidth != 16 && bitwidth != 32) {
    bitwidth_node.fail_found("for \"float\" 8, 16 or 32");
  }
  return bitwidth == 16 ? Precision::fp16() : Precision::fp32();
}

std::vector<SupportedKernel> read_kernels(const JsonNode& node,
                                          bool param_required) {
  std::vector<SupportedKernel> kernels;
  for (const JsonNode& entry : node.elements(1, "kernels")) {
    entry.check_keys({"activation", "param"});
    if (param_required) {
      entry.check_required({"activation", "param"});
    } else {
      entry.check_required({"activation"});
    }
    SupportedKernel kernel{read_precision(entry.at("activation")), {}};
    if (entry.has("param")) {
      kernel.param = read_precision(entry.at("param"));
    }
    kernels.push_back(kernel);
  }
  return kernels;
}

EncodingConstraints read_constraints(const JsonNode& node) {
  node.check_keys({"min", "max"});
  node.check_required({"min"});
  EncodingConstraints constraints{node.at("min").number(), {}};
  if (node.has("max")) {
    constraints.max = node.at("max").number();
    if (*constraints.max <= *constraints.min) {
      node.at("max").fail_found("a number greater than min");
    }
  }
  return constraints;
}

// Names that Qualcomm's QNN has for ops, and the ONNX types of those ops.
constexpr std::array<std::pair<std::string_view, std::string_view>, 50>
    kBackendNames = {{{"Batchnorm", "BatchNormalization"},
                      {"Conv1d", "Conv"},
                      {"Conv2d", "Conv"},
                      {"Conv3d", "Conv"},
                      {"DepthWiseConv1d", "Conv"},
                      {"DepthWiseConv2d", "Conv"},
                      {"ElementWiseAbs", "Abs"},
                      {"ElementWiseAdd", "Add"},
                      {"ElementWiseAnd", "And"},
                      {"ElementWiseAsin", "Asin"},
                      {"ElementWiseAtan", "Atan"},
                      {"ElementWiseCeil", "Ceil"},
                      {"ElementWiseCos", "Cos"},
                      {"ElementWiseDivide", "Div"},
                      {"ElementWiseEqual", "Equal"},
                      {"ElementWiseExp", "Exp"},
                      {"ElementWiseFloor", "Floor"},
                      {"ElementWiseFloorDiv", "Div"},
                      {"ElementWiseGreater", "Greater"},
                      {"ElementWiseGreaterEqual", "GreaterOrEqual"},
                      {"ElementWiseLess", "Less"},
                      {"ElementWiseLessEqual", "LessOrEqual"},
                      {"ElementWiseLog", "Log"},
                      {"ElementWiseMaximum", "Max"},
                      {"ElementWiseMinimum", "Min"},
                      {"ElementWiseMod", "Mod"},
                      {"ElementWiseMultiply", "Mul"},
                      {"ElementWiseNeg", "Neg"},
                      {"ElementWiseNot", "Not"},
                      {"ElementWiseOr", "Or"},
                      {"ElementWisePower", "Pow"},
                      {"ElementWiseRound", "Round"},
                      {"ElementWiseSelect", "Where"},
                      {"ElementWiseSign", "Sign"},
                      {"ElementWiseSin", "Sin"},
                      {"ElementWiseSoftplus", "Softplus"},
                      {"ElementWiseSquareRoot", "Sqrt"},
                      {"ElementWiseSubtract", "Sub"},
                      {"FullyConnected", "Gemm"},
                      {"GroupNorm", "GroupNormalization"},
                      {"InstanceNorm", "InstanceNormalization"},
                      {"LayerNorm", "LayerNormalization"},
                      {"Lstm", "LSTM"},
                      {"PoolAvg2d", "AveragePool"},
                      {"PoolMax2d", "MaxPool"},
                      {"Prelu", "PRelu"},
                      {"RmsNorm", "RMSNormalization"},
                      {"StridedSlice", "Slice"},
                      {"TransposeConv1d", "ConvTranspose"},
                      {"TransposeConv2d", "ConvTranspose"}}};

// The ONNX type of an op type in either vocabulary.
std::string onnx_type_of(const std::string& type) {
  const auto found =
      std::ranges::find(kBackendNames, type,
                        &std::pair<std::string_view, std::string_view>::first);
  return found == kBackendNames.end() ? type : std::string(found->second);
}

// What `over` says replaces what `rule` says.
void override_with(const OpRule& over, OpRule& rule) {
  const auto replace = [](const auto& from, auto& to) {
    if (from) {
      to = from;
    }
  };
  replace(over.is_input_quantized, rule.is_input_quantized);
  replace(over.is_output_quantized, rule.is_output_quantized);
  replace(over.is_symmetric, rule.is_symmetric);
  replace(over.per_channel_quantization, rule.per_channel_quantization);
  replace(over.encoding_constraints, rule.encoding_constraints);
  replace(over.supported_kernels, rule.supported_kernels);
  for (const auto& [name, param] : over.params) {
    replace(param.is_quantized, rule.params[name].is_quantized);
    replace(param.is_symmetric, rule.params[name].is_symmetric);
  }
}

void check_op_type(const std::string& type, const JsonNode& node) {
  if (!graph::is_known_onnx_type(type)) {
    node.fail("unknown op type \"" + type + "\"; did you mean \"" +
              graph::nearest_onnx_type(type) + "\"?");
  }
}

OpRule read_op_rule(const JsonNode& node) {
  node.check_keys({"is_input_quantized", "is_output_quantized", "is_symmetric",
                   "per_channel_quantization", "params", "encoding_constraints",
                   "supported_kernels"});
  OpRule rule;
  rule.is_input_quantized = node.optional_boolean("is_input_quantized");
  if (rule.is_input_quantized == false) {
    node.at("is_input_quantized")
        .fail_found(
            "true; an input is quantized where it is made: turn that off by "
            "is_output_quantized of the op type that makes it");
  }
  rule.is_output_quantized = node.optional_boolean("is_output_quantized");
  rule.is_symmetric = node.optional_boolean("is_symmetric");
  rule.per_channel_quantization =
      node.optional_boolean("per_channel_quantization");
  if (node.has("params")) {
    rule.params = read_params(node.at("params"));
  }
  if (node.has("encoding_constraints")) {
    rule.encoding_constraints =
        read_constraints(node.at("encoding_constraints"));
  }
  if (node.has("supported_kernels")) {
    rule.supported_kernels = read_kernels(node.at("supported_kernels"), false);
  }
  return rule;
}

// A QNN name says more than the ONNX type that it stands for, and wins.
std::map<std::string, OpRule> read_op_types(const JsonNode& node) {
  std::map<std::string, OpRule> rules;
  std::vector<std::pair<std::string, OpRule>> backend_rules;
  for (const auto& [name, entry] : node.members()) {
    const std::string type = onnx_type_of(name);
    check_op_type(type, entry);
    if (type == name) {
      rules[type] = read_op_rule(entry);
      continue;
    }
    const bool is_taken = std::ranges::any_of(
        backend_rules, [&](const auto& rule) { return rule.first == type; });
    if (is_taken) {
      entry.fail("a second QNN name for " + type + "; allowed: one of them");
    }
    backend_rules.emplace_back(type, read_op_rule(entry));
  }
  for (const auto& [type, rule] : backend_rules) {
    override_with(rule, rules[type]);
  }
  return rules;
}

config::Defaults read_defaults(const JsonNode& node) {
  node.check_keys({"ops", "params", "strict_symmetric", "unsigned_symmetric",
                   "per_channel_quantization", "hw_version",
                   "supported_kernels"});
  node.check_required({"ops", "params"});
  config::Defaults defaults;
  const JsonNode ops = node.at("ops");
  if (ops.has("is_input_quantized")) {
    ops.at("is_input_quantized")
        .fail(
            "not allowed: an input is quantized where it is made; use "
            "is_output_quantized, model_input or op_type");
  }
  ops.check_keys({"is_output_quantized", "is_symmetric"});
  defaults.ops_is_output_quantized =
      ops.optional_boolean("is_output_quantized");
  defaults.ops_is_symmetric = ops.optional_boolean("is_symmetric");
  defaults.params = read_param_rule(node.at("params"));
  defaults.strict_symmetric =
      node.optional_boolean("strict_symmetric").value_or(false);
  defaults.unsigned_symmetric =
      node.optional_boolean("unsigned_symmetric").value_or(false);
  defaults.per_channel_quantization =
      node.optional_boolean("per_channel_quantization").value_or(false);
  if (node.has("hw_version")) {
    defaults.hw_version = node.at("hw_version").string("a string");
  }
  if (node.has("supported_kernels")) {
    defaults.supported_kernels =
        read_kernels(node.at("supported_kernels"), true);
  }
  return defaults;
}

std::vector<std::vector<std::string>> read_supergroups(const JsonNode& node) {
  std::vector<std::vector<std::string>> patterns;
  for (const JsonNode& entry : node.elements(0, "supergroups")) {
    entry.check_keys({"op_list"});
    entry.check_required({"op_list"});
    std::vector<std::string> pattern;
    for (const JsonNode& op : entry.at("op_list").elements(2, "op types")) {
      pattern.push_back(op.string("an op type"));
      check_op_type(pattern.back(), op);
    }
    patterns.push_back(std::move(pattern));
  }
  return patterns;
}

void check_supergroup_pass_list(const JsonNode& node) {
  const std::string kAllowed =
      R"("MatmulAdd", "LayerNormalization" or "RMSNormalization")";
  for (const JsonNode& name : node.elements(0, "names")) {
    const std::string text = name.string(kAllowed);
    if (text != "MatmulAdd" && text != "LayerNormalization" &&
        text != "RMSNormalization") {
      name.fail_found(kAllowed);
    }
  }
}

}  // namespace

QuantConfig parse_quant_config(const std::string& text,
                               const std::string& origin) {
  const JsonDocument document(text, origin);
  const JsonNode root = document.root();
  root.check_keys({"defaults", "params", "op_type", "supergroups",
                   "model_input", "model_output", "supergroup_pass_list"});
  root.check_required({"defaults", "params", "op_type", "supergroups",
                       "model_input", "model_output"});
  QuantConfig config;
  config.defaults = read_defaults(root.at("defaults"));
  config.params = read_params(root.at("params"));
  config.op_type = read_op_types(root.at("op_type"));
  config.supergroups = read_supergroups(root.at("supergroups"));
  const JsonNode model_input = root.at("model_input");
  model_input.check_keys({"is_input_quantized"});
  config.model_input_is_input_quantized =
      model_input.optional_boolean("is_input_quantized");
  const JsonNode model_output = root.at("model_output");
  model_output.check_keys({"is_output_quantized"});
  config.model_output_is_output_quantized =
      model_output.optional_boolean("is_output_quantized");
  if (root.has("supergroup_pass_list")) {
    check_supergroup_pass_list(root.at("supergroup_pass_list"));
  }
  return config;
}

}  // namespace aimetpp::io
