// SPDX-License-Identifier: BSD-3-Clause
#include "config/hardware_rules.h"

#include <algorithm>
#include <cctype>

#include "graph/op_traits.h"

namespace aimetpp::config {

using graph::kNone;
using graph::Op;
using graph::OpGraph;

namespace {

constexpr int kLastNarrowVersion = 69;  // V66, V68, V69

// 73 of "V73"; 0 where the text is no such version.
int hexagon_version(const std::string& hw_version) {
  const bool has_digits =
      hw_version.size() == 3 && hw_version.front() == 'V' &&
      std::all_of(hw_version.begin() + 1, hw_version.end(),
                  [](unsigned char c) { return std::isdigit(c) != 0; });
  return has_digits ? std::stoi(hw_version.substr(1)) : 0;
}

class HardwareRules {
 public:
  HardwareRules(const OpGraph& graph, const std::string& hw_version,
                Placement& placement)
      : graph_(graph),
        hw_version_(hw_version),
        is_narrow_(hexagon_version(hw_version) <= kLastNarrowVersion),
        placement_(placement) {}

  void run() {
    for (int index = 0; index < static_cast<int>(graph_.ops.size()); ++index) {
      const Op& op = graph_.ops[index];
      if (op.multiplies_activations && op.inputs.size() >= 2) {
        apply_to_product(index);
      }
      const bool follows_output =
          op.kind == "embedding" || op.onnx_type == "GroupNormalization";
      if (follows_output && !is_narrow_ && !op.outputs.empty()) {
        apply_to_params(op);
      }
    }
  }

 private:
  void apply_to_product(int op) {
    const int first = quantizer_of_input(graph_, placement_, op, 0);
    const int second = quantizer_of_input(graph_, placement_, op, 1);
    if (second == kNone ||
        !placement_.quantizers[second].precision.is_integer()) {
      return;
    }
    const std::string& name = graph_.ops[op].name;
    if (is_narrow_) {
      change(second, Precision::integer(8), true, "second factor of " + name);
      return;
    }
    if (placement_.quantizers[second].precision != Precision::integer(16)) {
      return;
    }
    change(second, Precision::integer(16), true, "second factor of " + name);
    if (first != kNone && first != second &&
        placement_.quantizers[first].precision.is_integer()) {
      change(first, Precision::integer(16),
             placement_.quantizers[first].symmetric, "first factor of " + name);
    }
  }

  void apply_to_params(const Op& op) {
    const int output = placement_.quantizer_at(op.output_sites.front());
    if (output == kNone) {
      return;
    }
    const QuantizerSpec& spec = placement_.quantizers[output];
    for (const graph::Param& param : op.params) {
      const int own = placement_.quantizer_at(param.site);
      if (own != kNone) {
        change(own, spec.precision, spec.symmetric, "as its output");
      }
    }
  }

  void change(int quantizer, Precision precision, bool symmetric,
              const std::string& why) {
    QuantizerSpec& spec = placement_.quantizers[quantizer];
    if (spec.precision == precision && spec.symmetric == symmetric) {
      return;
    }
    spec.precision = precision;
    spec.symmetric = symmetric;
    for (const int site : spec.sites) {
      placement_.rules[site].push_back(
          {"defaults", "hw_version " + hw_version_,
           precision.name() + (symmetric ? " symmetric: " : " asymmetric: ") +
               why});
    }
  }

  const OpGraph& graph_;
  const std::string& hw_version_;
  bool is_narrow_;
  Placement& placement_;
};

}  // namespace

std::size_t num_tied_inputs(const Op& op, const std::string& hw_version) {
  if (graph::op_traits(op.kind).ties_inputs) {
    return op.inputs.size();
  }
  const bool resizes = !hw_version.empty() && op.onnx_type == "Resize";
  return resizes && !op.inputs.empty() ? 1 : 0;
}

void apply_hardware_rules(const OpGraph& graph, const std::string& hw_version,
                          Placement& placement) {
  if (hexagon_version(hw_version) > 0) {
    HardwareRules(graph, hw_version, placement).run();
  }
}

}  // namespace aimetpp::config
