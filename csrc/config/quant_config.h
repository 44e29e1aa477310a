// SPDX-License-Identifier: BSD-3-Clause
// The quantization configuration: six sections of increasing specificity that
// say which sites are quantized and how (AIMET's quantsim config files).
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/macros.h"
#include "core/types.h"

namespace aimetpp::config {

// A precision pair that an op's hardware kernel takes.
struct SupportedKernel {
  Precision activation;
  std::optional<Precision> param;  // absent: an activation-only kernel

  // "int16/int8", "int16/any".
  [[nodiscard]] std::string name() const {
    return activation.name() + "/" + (param ? param->name() : "any");
  }
  friend bool operator==(const SupportedKernel&,
                         const SupportedKernel&) = default;
};

struct ParamRule {
  std::optional<bool> is_quantized;
  std::optional<bool> is_symmetric;
};

struct EncodingConstraints {
  std::optional<double> min;
  std::optional<double> max;
};

struct OpRule {
  std::optional<bool> is_input_quantized;
  std::optional<bool> is_output_quantized;
  std::optional<bool> is_symmetric;
  std::optional<bool> per_channel_quantization;
  std::map<std::string, ParamRule> params;
  std::optional<EncodingConstraints> encoding_constraints;
  std::optional<std::vector<SupportedKernel>> supported_kernels;
};

struct Defaults {
  std::optional<bool> ops_is_output_quantized;
  std::optional<bool> ops_is_symmetric;
  ParamRule params;
  bool strict_symmetric = false;
  bool unsigned_symmetric = false;
  bool per_channel_quantization = false;
  std::string hw_version;  // "V73"; see config/hardware_rules.h
  std::vector<SupportedKernel> supported_kernels;
};

struct QuantConfig {
  Defaults defaults;
  std::map<std::string, ParamRule> params;  // by parameter name
  std::map<std::string, OpRule> op_type;    // by ONNX type
  std::vector<std::vector<std::string>> supergroups;
  std::optional<bool> model_input_is_input_quantized;
  std::optional<bool> model_output_is_output_quantized;
};

}  // namespace aimetpp::config
