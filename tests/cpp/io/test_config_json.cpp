// SPDX-License-Identifier: BSD-3-Clause
#include "io/config_json.h"

#include <gtest/gtest.h>

#include <fstream>
#include <random>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "core/error.h"

namespace aimetpp::io {
namespace {

using config::QuantConfig;
using config::SupportedKernel;

std::string shipped(const std::string& name) {
  const std::string path = std::string(AIMETPP_CONFIG_DIR) + "/" + name;
  std::ifstream file(path);
  EXPECT_TRUE(file) << path;
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

// The smallest valid file, with one section replaced.
std::string with_section(const std::string& section, const std::string& value) {
  std::string text = "{";
  std::string separator;
  bool replaced = false;
  for (const auto& [name, content] :
       std::vector<std::pair<std::string, std::string>>{
           {"defaults", R"({"ops": {}, "params": {}})"},
           {"params", "{}"},
           {"op_type", "{}"},
           {"supergroups", "[]"},
           {"model_input", "{}"},
           {"model_output", "{}"}}) {
    const bool here = name == section;
    replaced = replaced || here;
    text += separator + "\"" + name + "\": " + (here ? value : content);
    separator = ", ";
  }
  if (!replaced) {
    text += separator + "\"" + section + "\": " + value;
  }
  return text + "}";
}

TEST(ParseQuantConfig, ReadsEveryKey) {
  const QuantConfig config = parse_quant_config(R"({
    "defaults": {
      "ops": {"is_output_quantized": "True", "is_symmetric": "False"},
      "params": {"is_quantized": true, "is_symmetric": false},
      "strict_symmetric": "True", "unsigned_symmetric": true,
      "per_channel_quantization": "True", "hw_version": "V73",
      "supported_kernels": [
        {"activation": {"bitwidth": 16, "dtype": "int"},
         "param": {"bitwidth": 8, "dtype": "int"}},
        {"activation": {"bitwidth": 16, "dtype": "float"},
         "param": {"bitwidth": 32, "dtype": "float"}},
        {"activation": {"bitwidth": 8, "dtype": "float", "exponent_bits": 5},
         "param": {"bitwidth": 8, "dtype": "float", "exponent_bits": 4}}]},
    "params": {"bias": {"is_quantized": "False"},
               "weight": {"is_symmetric": "True"}},
    "op_type": {"Softmax": {
      "is_input_quantized": "True", "is_output_quantized": false,
      "is_symmetric": true, "per_channel_quantization": "False",
      "params": {"weight": {"is_quantized": true},
                 "running_mean": {"is_quantized": "False"}},
      "encoding_constraints": {"min": -1, "max": 1.5},
      "supported_kernels": [{"activation": {"bitwidth": 4, "dtype": "int"}}]}},
    "supergroup_pass_list": ["MatmulAdd"],
    "supergroups": [{"op_list": ["Conv", "Relu"]},
                    {"op_list": ["Conv", "BatchNormalization", "Clip"]}],
    "model_input": {"is_input_quantized": "True"},
    "model_output": {"is_output_quantized": true}})",
                                                "config.json");
  EXPECT_EQ(config.defaults.ops_is_output_quantized, true);
  EXPECT_EQ(config.defaults.ops_is_symmetric, false);
  EXPECT_EQ(config.defaults.params.is_quantized, true);
  EXPECT_EQ(config.defaults.params.is_symmetric, false);
  EXPECT_TRUE(config.defaults.strict_symmetric);
  EXPECT_TRUE(config.defaults.unsigned_symmetric);
  EXPECT_TRUE(config.defaults.per_channel_quantization);
  EXPECT_EQ(config.defaults.hw_version, "V73");
  EXPECT_EQ(config.defaults.supported_kernels,
            (std::vector<SupportedKernel>{
                {Precision::integer(16), Precision::integer(8)},
                {Precision::fp16(), Precision::fp32()},
                {Precision::fp8_e5m2(), Precision::fp8_e4m3()}}));
  ASSERT_EQ(config.params.size(), 2U);
  EXPECT_EQ(config.params.at("bias").is_quantized, false);
  EXPECT_EQ(config.params.at("bias").is_symmetric, std::nullopt);
  EXPECT_EQ(config.params.at("weight").is_symmetric, true);
  ASSERT_EQ(config.op_type.size(), 1U);
  const config::OpRule& softmax = config.op_type.at("Softmax");
  EXPECT_EQ(softmax.is_input_quantized, true);
  EXPECT_EQ(softmax.is_output_quantized, false);
  EXPECT_EQ(softmax.is_symmetric, true);
  EXPECT_EQ(softmax.per_channel_quantization, false);
  EXPECT_EQ(softmax.params.size(), 1U);
  EXPECT_EQ(softmax.params.at("weight").is_quantized, true);
  ASSERT_TRUE(softmax.encoding_constraints.has_value());
  EXPECT_EQ(softmax.encoding_constraints->min, -1.0);
  EXPECT_EQ(softmax.encoding_constraints->max, 1.5);
  EXPECT_EQ(
      softmax.supported_kernels,
      (std::vector<SupportedKernel>{{Precision::integer(4), std::nullopt}}));
  EXPECT_EQ(config.supergroups,
            (std::vector<std::vector<std::string>>{
                {"Conv", "Relu"}, {"Conv", "BatchNormalization", "Clip"}}));
  EXPECT_EQ(config.model_input_is_input_quantized, true);
  EXPECT_EQ(config.model_output_is_output_quantized, true);
}

TEST(ParseQuantConfig, BackendNamesWinOverOnnxTypes) {
  const QuantConfig config = parse_quant_config(
      with_section("op_type",
                   R"({"FullyConnected": {"is_symmetric": true,
                           "params": {"weight": {"is_quantized": false}}},
                       "Gemm": {"is_symmetric": false,
                                "is_output_quantized": false},
                       "ElementWiseAdd": {"is_symmetric": true}})"),
      "c");
  ASSERT_EQ(config.op_type.size(), 2U);
  EXPECT_EQ(config.op_type.at("Gemm").is_symmetric, true);
  EXPECT_EQ(config.op_type.at("Gemm").is_output_quantized, false);
  EXPECT_EQ(config.op_type.at("Gemm").params.at("weight").is_quantized, false);
  EXPECT_EQ(config.op_type.at("Add").is_symmetric, true);
}

TEST(ParseQuantConfig, EmptySectionsSayNothing) {
  const QuantConfig config =
      parse_quant_config(with_section("params", "{}"), "c");
  EXPECT_EQ(config.defaults.ops_is_output_quantized, std::nullopt);
  EXPECT_EQ(config.defaults.params.is_quantized, std::nullopt);
  EXPECT_FALSE(config.defaults.per_channel_quantization);
  EXPECT_TRUE(config.defaults.supported_kernels.empty());
  EXPECT_TRUE(config.op_type.empty());
  EXPECT_EQ(config.model_input_is_input_quantized, std::nullopt);
  EXPECT_EQ(config.model_output_is_output_quantized, std::nullopt);
}

struct ErrorCase {
  const char* name;
  std::string text;
  std::vector<std::string> parts;  // of the message
};

class ParseErrors : public ::testing::TestWithParam<ErrorCase> {};

TEST_P(ParseErrors, NamePathFoundAndAllowed) {
  try {
    parse_quant_config(GetParam().text, "my.json");
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::value);
    const std::string message = error.what();
    EXPECT_TRUE(message.starts_with("my.json: ")) << message;
    for (const std::string& part : GetParam().parts) {
      EXPECT_NE(message.find(part), std::string::npos)
          << "\"" << part << "\" is not in: " << message;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Cases, ParseErrors,
    ::testing::Values(
        ErrorCase{"NotJson", "{\"defaults\": ", {"not valid JSON", "line 1"}},
        ErrorCase{"NumberTooLarge",
                  with_section("params", "1e999"),
                  {"not valid JSON", "1e999"}},
        ErrorCase{"DuplicateKey",
                  R"({"params": {}, "params": {}})",
                  {"key \"params\" stands twice"}},
        ErrorCase{"NoObject", "[]", {"$: found [] (array)", "an object"}},
        ErrorCase{"MissingSection",
                  R"({"defaults": {}})",
                  {"$: \"params\" is missing", "model_output"}},
        ErrorCase{"UnknownSection",
                  with_section("model_inputs", "{}"),
                  {"$.model_inputs: unknown key", "allowed: defaults, "}},
        ErrorCase{"MissingOps",
                  with_section("defaults", R"({"params": {}})"),
                  {"$.defaults: \"ops\" is missing"}},
        ErrorCase{"InputsInDefaults",
                  with_section("defaults",
                               R"({"ops": {"is_input_quantized": "True"},
                                   "params": {}})"),
                  {"$.defaults.ops.is_input_quantized", "model_input"}},
        ErrorCase{"BooleanAsNumber",
                  with_section("params", R"({"bias": {"is_quantized": 0}})"),
                  {"$.params.bias.is_quantized: found 0 (number)",
                   R"(true, false, "True" or "False")"}},
        ErrorCase{
            "BooleanInLowerCase",
            with_section("model_input", R"({"is_input_quantized": "true"})"),
            {"$.model_input.is_input_quantized: found \"true\" (string)"}},
        ErrorCase{"UnknownParam",
                  with_section("params", R"({"wieght": {}})"),
                  {"$.params.wieght: unknown parameter", "weight, bias"}},
        ErrorCase{
            "RunningStatistics",
            with_section("op_type",
                         R"({"BatchNormalization": {"params":
                             {"running_var": {"is_quantized": true}}}})"),
            {"$.op_type.BatchNormalization.params.running_var.is_quantized"}},
        ErrorCase{
            "UnknownOpType",
            with_section("op_type", R"({"Convv": {}})"),
            {"$.op_type.Convv: unknown op type", "did you mean \"Conv\"?"}},
        ErrorCase{
            "TwoBackendNames",
            with_section("op_type", R"({"Conv2d": {}, "DepthWiseConv2d": {}})"),
            {"$.op_type.DepthWiseConv2d: a second QNN name for Conv"}},
        ErrorCase{
            "UnknownOpKey",
            with_section("op_type", R"({"Conv": {"is_quantized": true}})"),
            {"$.op_type.Conv.is_quantized: unknown key",
             "is_output_quantized"}},
        ErrorCase{"InputQuantizedFalse",
                  with_section("op_type",
                               R"({"Conv": {"is_input_quantized": "False"}})"),
                  {"$.op_type.Conv.is_input_quantized: found \"False\"",
                   "allowed: true"}},
        ErrorCase{"UnknownOpTypeInSupergroup",
                  with_section("supergroups",
                               R"([{"op_list": ["Conv", "Relu"]},
                                   {"op_list": ["Conv", "Reluu"]}])"),
                  {"$.supergroups[1].op_list[1]: unknown op type \"Reluu\"",
                   "did you mean \"Relu\"?"}},
        ErrorCase{"SupergroupOfOne",
                  with_section("supergroups", R"([{"op_list": ["Conv"]}])"),
                  {"$.supergroups[0].op_list: found [\"Conv\"] (array)",
                   "at least 2"}},
        ErrorCase{
            "PassList",
            with_section("supergroup_pass_list", R"(["ConvRelu"])"),
            {"$.supergroup_pass_list[0]: found \"ConvRelu\"", "\"MatmulAdd\""}},
        ErrorCase{"ConstraintsWithoutMin",
                  with_section("op_type",
                               R"({"Relu": {"encoding_constraints":
                                   {"max": 6}}})"),
                  {"$.op_type.Relu.encoding_constraints: \"min\" is missing"}},
        ErrorCase{"ConstraintsReversed",
                  with_section("op_type",
                               R"({"Relu": {"encoding_constraints":
                                   {"min": 6, "max": 0}}})"),
                  {"$.op_type.Relu.encoding_constraints.max: found 0",
                   "greater than min"}},
        ErrorCase{"KernelsWithoutParam",
                  with_section("defaults",
                               R"({"ops": {}, "params": {},
                                   "supported_kernels": [{"activation":
                                   {"bitwidth": 8, "dtype": "int"}}]})"),
                  {"$.defaults.supported_kernels[0]: \"param\" is missing"}},
        ErrorCase{
            "EmptyKernels",
            with_section("op_type", R"({"Conv": {"supported_kernels": []}})"),
            {"$.op_type.Conv.supported_kernels: found []", "at least 1"}},
        ErrorCase{"KernelDtype",
                  with_section("op_type",
                               R"({"Conv": {"supported_kernels": [{"activation":
                                   {"bitwidth": 8, "dtype": "uint"}}]}})"),
                  {"$.op_type.Conv.supported_kernels[0].activation.dtype: "
                   "found \"uint\"",
                   "\"int\" or \"float\""}},
        ErrorCase{"KernelFloatBitwidth",
                  with_section("op_type",
                               R"({"Conv": {"supported_kernels": [{"activation":
                                   {"bitwidth": 4, "dtype": "float"}}]}})"),
                  {"activation.bitwidth: found 4", "8, 16 or 32"}},
        ErrorCase{"KernelFloat8WithoutExponentBits",
                  with_section("op_type",
                               R"({"Conv": {"supported_kernels": [{"activation":
                                   {"bitwidth": 8, "dtype": "float"}}]}})"),
                  {"activation: \"exponent_bits\" is missing"}},
        ErrorCase{
            "KernelFloat8ExponentBits",
            with_section("op_type",
                         R"({"Conv": {"supported_kernels": [{"activation":
                                   {"bitwidth": 8, "dtype": "float",
                                    "exponent_bits": 3}}]}})"),
            {"activation.exponent_bits: found 3", "4 (e4m3) or 5 (e5m2)"}},
        ErrorCase{"KernelExponentBitsOfAnInteger",
                  with_section("op_type",
                               R"({"Conv": {"supported_kernels": [{"activation":
                                   {"bitwidth": 8, "dtype": "int",
                                    "exponent_bits": 4}}]}})"),
                  {"activation.exponent_bits: found 4", "8-bit floats alone"}},
        ErrorCase{"KernelIntBitwidth",
                  with_section("op_type",
                               R"({"Conv": {"supported_kernels": [{"activation":
                                   {"bitwidth": 4294967304, "dtype": "int"}}]}})"),
                  {"activation.bitwidth: found 4294967304", "2 to 32"}},
        ErrorCase{"KernelBitwidthIsText",
                  with_section("op_type",
                               R"({"Conv": {"supported_kernels": [{"activation":
                                   {"bitwidth": "8", "dtype": "int"}}]}})"),
                  {"activation.bitwidth: found \"8\" (string)", "integer"}}),
    [](const auto& param_info) { return std::string(param_info.param.name); });

// Damaged text is a value error, or still a config; nothing else comes out.
TEST(ParseQuantConfig, DamagedText) {
  const std::string whole = shipped("accelerator_example.json");
  const std::size_t end = whole.find_last_of('}');
  for (std::size_t length = 0; length <= end; ++length) {
    EXPECT_THROW(parse_quant_config(whole.substr(0, length), "c"), Error);
  }
  std::mt19937 random(0);
  int num_accepted = 0;
  constexpr int kNumTrials = 2000;
  for (int trial = 0; trial < kNumTrials; ++trial) {
    std::string damaged = whole;
    damaged[random() % end] = static_cast<char>(random() % 256);
    try {
      parse_quant_config(damaged, "c");
      ++num_accepted;  // white space, the value of a number or a boolean
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::value);
    }
  }
  EXPECT_LT(num_accepted, kNumTrials / 2);
}

TEST(ShippedConfigs, DefaultIsPerChannelAndPerTensorIsTheSameWithout) {
  QuantConfig per_channel =
      parse_quant_config(shipped("default.json"), "default.json");
  const QuantConfig per_tensor = parse_quant_config(
      shipped("default_per_tensor.json"), "default_per_tensor.json");
  for (const char* type :
       {"Conv", "ConvTranspose", "Gemm", "MatMul", "PRelu"}) {
    EXPECT_EQ(per_channel.op_type.at(type).per_channel_quantization, true);
    EXPECT_FALSE(per_tensor.op_type.contains(type));
  }
  for (const QuantConfig* config : {&std::as_const(per_channel), &per_tensor}) {
    EXPECT_EQ(config->defaults.ops_is_output_quantized, true);
    EXPECT_EQ(config->defaults.params.is_quantized, true);
    EXPECT_EQ(config->defaults.params.is_symmetric, true);
    EXPECT_FALSE(config->defaults.per_channel_quantization);
    EXPECT_EQ(config->params.at("bias").is_quantized, false);
    EXPECT_EQ(config->op_type.at("Cast").is_output_quantized, false);
    EXPECT_EQ(config->supergroups,
              (std::vector<std::vector<std::string>>{{"Conv", "Relu"},
                                                     {"Conv", "Clip"},
                                                     {"ConvTranspose", "Relu"},
                                                     {"Add", "Relu"},
                                                     {"Gemm", "Relu"}}));
    EXPECT_EQ(config->model_input_is_input_quantized, true);
    EXPECT_EQ(config->model_output_is_output_quantized, std::nullopt);
  }
}

TEST(ShippedConfigs, AcceleratorExampleHasKernelsAndSixteenBitOps) {
  const QuantConfig config = parse_quant_config(
      shipped("accelerator_example.json"), "accelerator_example.json");
  EXPECT_EQ(config.defaults.supported_kernels.size(), 3U);
  EXPECT_EQ(config.op_type.at("Conv").supported_kernels->size(), 4U);
  EXPECT_EQ(
      config.op_type.at("Softmax").supported_kernels,
      (std::vector<SupportedKernel>{{Precision::integer(16), std::nullopt}}));
  for (const SupportedKernel& kernel :
       *config.op_type.at("LayerNormalization").supported_kernels) {
    EXPECT_EQ(kernel.activation, Precision::integer(16));
  }
}

}  // namespace
}  // namespace aimetpp::io
