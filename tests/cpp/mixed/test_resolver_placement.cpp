// SPDX-License-Identifier: BSD-3-Clause
// Requests over placements that a config made, and how long many of them take.
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "config/placement.h"
#include "mixed/resolver.h"
#include "resolver_models.h"

namespace aimetpp::mixed::testing {
namespace {

using Changes = std::map<std::string, std::string>;

config::QuantConfig config_with(
    std::vector<std::vector<std::string>> supergroups) {
  config::QuantConfig config;
  config.defaults.ops_is_output_quantized = true;
  config.defaults.params.is_quantized = true;
  config.params["bias"].is_quantized = false;
  config.supergroups = std::move(supergroups);
  config.model_input_is_input_quantized = true;
  config.model_output_is_output_quantized = true;
  return config;
}

void place(Model& model, const config::QuantConfig& config) {
  model.graph = model.builder.build();
  model.placement = config::place_quantizers(
      model.graph, config, {Precision::integer(8), Precision::integer(8)});
}

// conv+bn+relu -> softmax -> flat -> fc+relu
Model chain(const config::QuantConfig& config) {
  Model m;
  GraphBuilder& b = m.builder;
  const int x = b.input();
  const int conv = b.leaf("conv2d", "conv", {x}, with_weight(9));
  const int norm = b.leaf("batch_norm", "bn", {conv}, with_weight(0, {4}));
  const int relu = b.leaf("relu", "act", {norm});
  const int soft = b.leaf("softmax", "soft", {relu});
  const int fc = b.leaf("linear", "fc", {b.leaf("flatten", "flat", {soft})},
                        with_weight(40, {10, 4}));
  b.output(b.leaf("relu", "last", {fc}));
  place(m, config);
  return m;
}

TEST(ResolverWithConfig, SupergroupWithAFoldedBatchNorm) {
  const Model model = chain(config_with({{"Conv", "Relu"}, {"Gemm", "Relu"}}));
  EXPECT_EQ(changed(model, resolve(model, {leaf("conv", {"int16"})})),
            (Changes{{"conv.input.0", "int16"}, {"act", "int16"}}));
  EXPECT_EQ(changed(model, resolve(model, {leaf("bn", {"int16"})})),
            (Changes{{"act", "int16"}}));
  EXPECT_EQ(changed(model, resolve(model, {leaf("act", {"int16"})})),
            (Changes{{"act", "int16"}}));
  EXPECT_EQ(changed(model, resolve(model, {leaf("fc", {"int16"})})),
            (Changes{{"soft", "int16"}, {"last", "int16"}}));
}

TEST(ResolverWithConfig, AnOutputTheConfigTurnsOffIsNotItsReadersOutput) {
  config::QuantConfig config = config_with({});
  config.op_type["Softmax"].is_output_quantized = false;
  const Model model = chain(config);
  // Softmax has no quantizer of its own and is in no supergroup, so that
  // nothing but its input changes: fc's output is fc's own affair.
  EXPECT_EQ(changed(model, resolve(model, {leaf("soft", {"int16"})})),
            (Changes{{"act", "int16"}}));
}

TEST(ResolverWithConfig, ModelInputThatIsFlattenedFirst) {
  Model model;
  GraphBuilder& b = model.builder;
  const int flat = b.leaf("flatten", "flat", {b.input()});
  b.output(b.leaf("linear", "fc", {flat}, with_weight()));
  place(model, config_with({}));
  const Changes expected{{"fc.input.0", "int16"}};
  EXPECT_EQ(changed(model, resolve(model, {model_input({"int16"})})), expected);
  EXPECT_EQ(changed(model, resolve(model, {leaf("flat", {"int16"})})),
            expected);
}

TEST(ResolverWithConfig, TiedConcatenation) {
  Model model;
  GraphBuilder& b = model.builder;
  const int x = b.input();
  const int left = b.leaf("conv2d", "a", {x}, with_weight());
  const int right = b.leaf("conv2d", "b", {x}, with_weight());
  b.output(b.functional("cat", "", {left, right}));
  place(model, config_with({}));
  EXPECT_EQ(changed(model, resolve(model, {leaf("/cat_0", {"int16"})})),
            (Changes{{"a", "int16"}}));
}

// How long this takes: benchmarks/mmp_resolution.py.
TEST(Resolver, ManyRequestsOnALargeGraph) {
  Model model;
  GraphBuilder& b = model.builder;
  int x = b.input();
  for (int block = 0; block < 1000; ++block) {
    const std::string name = "block" + std::to_string(block);
    const int conv = b.leaf("conv2d", name + ".conv", {x}, with_weight());
    const int relu = b.leaf("relu", name + ".relu", {conv});
    x = b.functional("add", name, {relu, x});
  }
  b.output(x);
  place(model, config_with({{"Conv", "Relu"}}));
  std::vector<Request> requests;
  for (int block = 0; block < 1000; ++block) {
    const std::string name = "block" + std::to_string(block);
    Request request;
    request.subject = name;
    request.target = RequestTarget::container;
    request.ops = {3 * block, 3 * block + 1, 3 * block + 2};
    request.activations = {Precision::integer(block % 2 == 0 ? 4 : 16)};
    requests.push_back(std::move(request));
  }
  const Resolution resolution = resolve_requests(
      model.graph, model.placement, current_of(model), requests, true);
  EXPECT_EQ(resolution.changes.size(), 2001u);
}

}  // namespace
}  // namespace aimetpp::mixed::testing
