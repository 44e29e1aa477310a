// SPDX-License-Identifier: BSD-3-Clause
// Configs and a readable form of placements for the tests of config/ and
// groups/.
#pragma once

#include <stdexcept>
#include <string>
#include <vector>

#include "config/placement.h"
#include "support/graph_builder.h"

namespace aimetpp::testing {

// Outputs and params on, biases off, params symmetric, per-tensor.
inline config::QuantConfig plain_config() {
  config::QuantConfig config;
  config.defaults.ops_is_output_quantized = true;
  config.defaults.params = {true, true};
  config.params["bias"] = {false, std::nullopt};
  config.model_input_is_input_quantized = true;
  return config;
}

// The shipped default's supergroups.
inline config::QuantConfig fusing_config() {
  config::QuantConfig config = plain_config();
  config.supergroups = {{"Conv", "Relu"},
                        {"Conv", "Clip"},
                        {"ConvTranspose", "Relu"},
                        {"Add", "Relu"},
                        {"Gemm", "Relu"}};
  return config;
}

inline config::Placement place(const graph::OpGraph& graph,
                               const config::QuantConfig& config) {
  return config::place_quantizers(
      graph, config, {Precision::integer(8), Precision::integer(4)});
}

// One line per quantizer: "output int8: conv1 cat", "param int4 sym axis 0:
// conv1.weight".
inline std::vector<std::string> quantizer_lines(
    const graph::OpGraph& graph, const config::Placement& placement) {
  std::vector<std::string> lines;
  for (const config::QuantizerSpec& spec : placement.quantizers) {
    std::string line =
        std::string(graph::to_string(spec.kind)) + " " + spec.precision.name();
    if (spec.symmetric) {
      line += " sym";
    }
    if (spec.channel_axis != graph::kNone) {
      line += " axis " + std::to_string(spec.channel_axis);
    }
    line += ":";
    for (const int site : spec.sites) {
      line += " " + graph.site_name(site);
    }
    lines.push_back(line);
  }
  return lines;
}

using Lines = std::vector<std::string>;

// The quantizer lines of a graph under a config.
inline Lines placed(const GraphBuilder& builder,
                    const config::QuantConfig& config) {
  const graph::OpGraph graph = builder.build();
  return quantizer_lines(graph, place(graph, config));
}

inline int site_named(const graph::OpGraph& graph, const std::string& name) {
  for (const graph::Site& site : graph.sites) {
    if (graph.site_name(site.id) == name) {
      return site.id;
    }
  }
  throw std::out_of_range("no site " + name);
}

inline int op_named(const graph::OpGraph& graph, const std::string& name) {
  for (int op = 0; op < static_cast<int>(graph.ops.size()); ++op) {
    if (graph.ops[op].name == name) {
      return op;
    }
  }
  throw std::out_of_range("no op " + name);
}

// "section | rule | effect" of a site, in the order of application.
inline std::vector<std::string> rule_lines(const graph::OpGraph& graph,
                                           const config::Placement& placement,
                                           const std::string& site) {
  std::vector<std::string> lines;
  for (const config::RuleEffect& effect :
       placement.rules[site_named(graph, site)]) {
    lines.push_back(effect.section + " | " + effect.rule + " | " +
                    effect.effect);
  }
  return lines;
}

}  // namespace aimetpp::testing
