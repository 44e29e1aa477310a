// SPDX-License-Identifier: BSD-3-Clause
// Small models with placements made by hand, and requests as short to write as
// a user's call.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "core/error.h"
#include "mixed/report_text.h"
#include "mixed/resolver.h"
#include "support/graph_builder.h"

namespace aimetpp::mixed::testing {

using aimetpp::testing::GraphBuilder;
using aimetpp::testing::with_weight;
using graph::kNone;

// A model with a placement made by hand: int8 quantizers at the readers of
// model inputs, at the outputs of compute ops and at params called "weight".
class Model {
 public:
  GraphBuilder builder;

  // The op's output is inside a supergroup.
  Model& fuse(const std::string& op) {
    fused_.insert(op);
    return *this;
  }
  // The config wants no quantizer at the op's output.
  Model& off(const std::string& op) {
    off_.insert(op);
    return *this;
  }
  // The outputs of these ops share one quantizer.
  Model& tie(const std::vector<std::string>& ops) {
    for (const std::string& op : ops) tied_[op] = ops.front();
    return *this;
  }
  Model& kernels(const std::string& op,
                 std::vector<config::SupportedKernel> kernels) {
    kernels_[op] = std::move(kernels);
    return *this;
  }

  void place() {
    graph = builder.build();
    placement.quantizer_of_site.assign(graph.sites.size(), kNone);
    placement.rules.resize(graph.sites.size());
    placement.kernels_of_op.resize(graph.ops.size());
    placement.is_fused.assign(graph.ops.size(), false);
    for (std::size_t index = 0; index < graph.ops.size(); ++index) {
      const graph::Op& op = graph.ops[index];
      if (const auto found = kernels_.find(op.name); found != kernels_.end()) {
        placement.kernels_of_op[index] = found->second;
      }
      for (std::size_t slot = 0; slot < op.inputs.size(); ++slot) {
        const graph::Tensor& tensor = graph.tensors[op.inputs[slot]];
        if (tensor.origin != graph::Origin::model_input ||
            op.input_sites[slot] == kNone) {
          continue;
        }
        const std::string key =
            "model input " + std::to_string(tensor.model_input);
        add(op.input_sites[slot], key, graph::SiteKind::input);
      }
      for (const graph::Param& param : op.params) {
        if (param.name != "weight") {
          placement.rules[param.site] = {{"params", "bias", "off"}};
        } else {
          add(param.site, "param " + std::to_string(param.site),
              graph::SiteKind::param);
        }
      }
      if (op.role != graph::OpRole::compute || op.call == kNone) continue;
      const int output = op.output_sites.front();
      if (fused_.count(op.name) > 0) {
        placement.is_fused[index] = true;
      } else if (off_.count(op.name) > 0) {
        placement.rules[output] = {{"op_type", op.onnx_type, "off"}};
      } else {
        const auto tied = tied_.find(op.name);
        add(output, "output " + (tied == tied_.end() ? op.name : tied->second),
            graph::SiteKind::output);
      }
    }
  }

  int op(const std::string& name) const {
    for (std::size_t index = 0; index < graph.ops.size(); ++index) {
      if (graph.ops[index].name == name) return static_cast<int>(index);
    }
    ADD_FAILURE() << "no op " << name;
    return kNone;
  }

  graph::OpGraph graph;
  config::Placement placement;

 private:
  void add(int site, const std::string& key, graph::SiteKind kind) {
    const auto [entry, is_new] = quantizers_.try_emplace(
        key, static_cast<int>(placement.quantizers.size()));
    if (is_new) {
      placement.quantizers.push_back(
          {Precision::integer(8), false, false, false, kNone, {}, kind, {}});
    }
    placement.quantizer_of_site[site] = entry->second;
    placement.quantizers[entry->second].sites.push_back(site);
  }

  std::set<std::string> fused_, off_;
  std::map<std::string, std::string> tied_;
  std::map<std::string, std::vector<config::SupportedKernel>> kernels_;
  std::map<std::string, int> quantizers_;
};

// A request as a test writes it: op names and precision names ("" is None).
struct Ask {
  RequestTarget target = RequestTarget::leaf;
  std::vector<std::string> ops;
  std::vector<std::string> activations;
  std::map<std::string, std::string> params = {};
};

inline Ask leaf(const std::string& op, std::vector<std::string> activations,
                std::map<std::string, std::string> params = {}) {
  return {RequestTarget::leaf, {op}, std::move(activations), std::move(params)};
}
inline Ask container(std::vector<std::string> ops,
                     const std::string& activation,
                     std::map<std::string, std::string> params = {}) {
  return {RequestTarget::container,
          std::move(ops),
          {activation},
          std::move(params)};
}
inline Ask type(std::vector<std::string> ops,
                std::vector<std::string> activations,
                std::map<std::string, std::string> params = {}) {
  return {RequestTarget::type, std::move(ops), std::move(activations),
          std::move(params)};
}
inline Ask model_input(std::vector<std::string> activations) {
  return {RequestTarget::model_input, {}, std::move(activations)};
}
inline Ask model_output(std::vector<std::string> activations) {
  return {RequestTarget::model_output, {}, std::move(activations)};
}

inline std::vector<Request> requests_of(const Model& model,
                                        const std::vector<Ask>& asks) {
  std::vector<Request> requests;
  for (const Ask& ask : asks) {
    Request request;
    request.target = ask.target;
    std::vector<int> ops;
    for (const std::string& op : ask.ops) {
      ops.push_back(model.op(op));
      request.subject += (request.subject.empty() ? "" : "+") + op;
    }
    request.ops = OpList(ops);
    if (request.subject.empty()) {
      request.subject = ask.target == RequestTarget::model_input ? "model input"
                        : ask.target == RequestTarget::model_output
                            ? "model output"
                            : "nothing";
    }
    request.source = "demo.py:" + std::to_string(requests.size() + 11);
    for (const std::string& name : ask.activations) {
      request.activations.push_back(
          name.empty() ? std::nullopt : std::optional(Precision::parse(name)));
    }
    for (const auto& [name, precision] : ask.params) {
      request.params.insert_or_assign(name, Precision::parse(precision));
    }
    requests.push_back(std::move(request));
  }
  return requests;
}

inline std::vector<Precision> current_of(const Model& model) {
  std::vector<Precision> current;
  for (const auto& quantizer : model.placement.quantizers) {
    current.push_back(quantizer.precision);
  }
  return current;
}

// A resolution with its report.
struct Resolved : Resolution, ResolutionReport {};

inline Resolved resolved(const Model& model,
                         const std::vector<Precision>& current,
                         const std::vector<Request>& requests, bool strict) {
  Resolution resolution =
      resolve_requests(model.graph, model.placement, current, requests, strict);
  ResolutionReport report =
      report_of(model.graph, model.placement, requests, resolution);
  return {std::move(resolution), std::move(report)};
}

inline Resolved resolve(const Model& model, const std::vector<Ask>& asks,
                        bool strict = true) {
  return resolved(model, current_of(model), requests_of(model, asks), strict);
}

inline std::string text_of(const Resolved& both) { return to_text(both, both); }

// First site of each quantizer that is not int8 -> its precision.
inline std::map<std::string, std::string> changed(
    const Model& model, const Resolution& resolution) {
  std::map<std::string, std::string> result;
  for (std::size_t q = 0; q < resolution.precisions.size(); ++q) {
    if (resolution.precisions[q] == Precision::integer(8)) continue;
    result[model.graph.site_name(model.placement.quantizers[q].sites.front())] =
        resolution.precisions[q].name();
  }
  return result;
}

// Every site whose quantizer is not int8 -> its precision.
inline std::map<std::string, std::string> changed_sites(
    const Model& model, const Resolution& resolution) {
  std::map<std::string, std::string> result;
  for (std::size_t q = 0; q < resolution.precisions.size(); ++q) {
    if (resolution.precisions[q] == Precision::integer(8)) continue;
    for (const int site : model.placement.quantizers[q].sites) {
      result[model.graph.site_name(site)] = resolution.precisions[q].name();
    }
  }
  return result;
}

inline std::string error_of(const Model& model, const std::vector<Ask>& asks,
                            ErrorKind kind) {
  try {
    resolve(model, asks, true);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), kind) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "no error";
  return "";
}

inline bool mentions(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

inline bool has_line(const std::vector<ReportLine>& lines, int request,
                     const std::string& subject, const std::string& part) {
  return std::any_of(lines.begin(), lines.end(), [&](const ReportLine& line) {
    return line.request == request && line.subject == subject &&
           mentions(line.detail, part);
  });
}

// What a line says by name; a default where it says nothing of that kind.
template <typename Kind>
Kind fact_of(const ReportLine& line, std::string_view name) {
  for (const auto& [key, fact] : line.facts) {
    if (key == name && std::holds_alternative<Kind>(fact)) {
      return std::get<Kind>(fact);
    }
  }
  return {};
}

// conv1+relu1 -> conv2+relu2, conv3 -> + -> pool -> flat -> fc; conv+relu is a
// supergroup. The sites that hold quantizers:
//   conv1.input.0, conv1.weight, relu1, conv2.weight, relu2, conv3.weight,
//   conv3, /add_0, fc.weight, fc
inline Model residual() {
  Model m;
  GraphBuilder& b = m.builder;
  const int x = b.input();
  const int stem =
      b.leaf("relu", "relu1", {b.leaf("conv2d", "conv1", {x}, with_weight())});
  const int left = b.leaf("relu", "relu2",
                          {b.leaf("conv2d", "conv2", {stem}, with_weight())});
  const int right = b.leaf("conv2d", "conv3", {stem}, with_weight());
  const int sum = b.functional("add", "", {left, right});
  const int flat =
      b.leaf("flatten", "flat", {b.leaf("max_pool2d", "pool", {sum})});
  b.output(b.leaf("linear", "fc", {flat}, with_weight(1, {10, 4})));
  m.fuse("conv1").fuse("conv2");
  m.place();
  return m;
}

// x, y -> a, b (convs) -> cat (tied) -> c; the model puts out c and a view of
// it
inline Model two_inputs() {
  Model m;
  GraphBuilder& b = m.builder;
  const int x = b.input();
  const int y = b.input();
  const int left = b.leaf("conv2d", "a", {x}, with_weight());
  const int right = b.leaf("conv2d", "b", {y}, with_weight());
  const int both = b.functional("cat", "", {left, right});
  const int out = b.leaf("conv2d", "c", {both}, with_weight());
  b.output(out);
  b.output(b.bare("view", {b.leaf("relu", "d", {both})}));
  m.tie({"a", "b", "/cat_0"});
  m.place();
  return m;
}

// softmax's output is left alone by the config; the model input is read by two
// leaves, and by one through a view.
inline Model shared_input() {
  Model m;
  GraphBuilder& b = m.builder;
  const int x = b.input();
  const int p = b.leaf("linear", "p", {x}, with_weight());
  const int q = b.leaf("linear", "q", {x}, with_weight());
  const int soft = b.leaf("softmax", "soft", {p});
  b.output(b.functional("matmul", "", {soft, q}));
  m.off("soft");
  m.place();
  return m;
}

// A block called twice: the same relu after two convs.
inline Model reused() {
  Model m;
  GraphBuilder& b = m.builder;
  const int x = b.input();
  const int first =
      b.leaf("relu", "act", {b.leaf("conv2d", "u", {x}, with_weight())});
  b.output(
      b.leaf("relu", "act", {b.leaf("conv2d", "v", {first}, with_weight())}));
  m.place();
  return m;
}

}  // namespace aimetpp::mixed::testing
