// SPDX-License-Identifier: BSD-3-Clause
#include "graph/op_graph.h"

#include <functional>
#include <numeric>
#include <sstream>

#include "core/text.h"

namespace aimetpp::graph {
namespace {

// The index in `sites` of `site`; kNone where it is not there.
int find_slot(const std::vector<int>& sites, int site) {
  for (std::size_t i = 0; i < sites.size(); ++i) {
    if (sites[i] == site) return static_cast<int>(i);
  }
  return kNone;
}

char origin_letter(Origin origin) {
  switch (origin) {
    case Origin::op:
      return 't';
    case Origin::model_input:
      return 'x';
    case Origin::constant:
      return 'c';
    case Origin::parameter:
      return 'p';
  }
  return '?';
}

std::string tensor_text(const OpGraph& graph, int tensor, int site) {
  std::string text(1, origin_letter(graph.tensors.at(tensor).origin));
  text += std::to_string(tensor);
  if (site != kNone) text += "#" + std::to_string(site);
  return text;
}

std::string tensors_text(const OpGraph& graph, const std::vector<int>& tensors,
                         const std::vector<int>& sites) {
  std::string text;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    if (i > 0) text += ", ";
    text += tensor_text(graph, tensors[i], sites.empty() ? kNone : sites.at(i));
  }
  return text;
}

std::string params_text(const std::vector<Param>& params) {
  return join(params, [](const Param& param) {
    return param.site == kNone ? param.name
                               : concat(param.name, "#", param.site);
  });
}

}  // namespace

const char* to_string(SiteKind kind) {
  switch (kind) {
    case SiteKind::input:
      return "input";
    case SiteKind::output:
      return "output";
    case SiteKind::param:
      return "param";
  }
  return "";
}

const char* to_string(OpRole role) {
  switch (role) {
    case OpRole::compute:
      return "compute";
    case OpRole::grid_preserving:
      return "grid_preserving";
    case OpRole::metadata:
      return "metadata";
  }
  return "";
}

const char* to_string(Origin origin) {
  switch (origin) {
    case Origin::op:
      return "op";
    case Origin::model_input:
      return "model_input";
    case Origin::constant:
      return "constant";
    case Origin::parameter:
      return "parameter";
  }
  return "";
}

std::int64_t num_elements(const std::vector<std::int64_t>& shape) {
  return std::accumulate(shape.begin(), shape.end(), std::int64_t{1},
                         std::multiplies<>());
}

std::string Site::param_name() const {
  const std::string whole = param.substr(0, param.find('['));
  return whole.substr(whole.find_last_of('.') + 1);
}

std::string Call::name() const {
  if (!label.empty()) return label;
  if (functional) return module + "/" + type + "_" + std::to_string(ordinal);
  // The root has no dotted name; where it is itself a leaf, it is the only one.
  const std::string& base = module.empty() ? type : module;
  return ordinal == 0 ? base : base + ":" + std::to_string(ordinal);
}

std::string OpGraph::site_name(int site) const {
  const Site& s = sites.at(site);
  if (!s.label.empty()) return s.label;
  std::string call = calls.at(s.call).name();
  if (s.kind == SiteKind::param) return call + "." + s.param;
  if (s.kind == SiteKind::output && s.slot == 0) return call;
  return call + "." + to_string(s.kind) + "." + std::to_string(s.slot);
}

int OpGraph::op_of_site(int site) const {
  const int call = sites.at(site).call;
  for (std::size_t i = 0; i < ops.size(); ++i) {
    if (ops[i].call == call && call != kNone) return static_cast<int>(i);
  }
  return kNone;
}

std::vector<int> OpGraph::ops_of_calls() const {
  std::vector<int> found(calls.size(), kNone);
  for (std::size_t i = 0; i < ops.size(); ++i) {
    const int call = ops[i].call;
    if (call != kNone && found[call] == kNone)
      found[call] = static_cast<int>(i);
  }
  return found;
}

int OpGraph::tensor_of_site(int site) const {
  const int op_index = op_of_site(site);
  if (op_index == kNone) return kNone;
  const Op& op = ops[op_index];
  switch (sites[site].kind) {
    case SiteKind::input: {
      const int slot = find_slot(op.input_sites, site);
      return slot == kNone ? kNone : op.inputs.at(slot);
    }
    case SiteKind::output: {
      const int slot = find_slot(op.output_sites, site);
      return slot == kNone ? kNone : op.outputs.at(slot);
    }
    case SiteKind::param:
      return kNone;
  }
  return kNone;
}

int OpGraph::value_source(int tensor) const {
  while (tensors.at(tensor).origin == Origin::op) {
    const Op& op = ops.at(tensors[tensor].producer);
    if (op.role != OpRole::grid_preserving || op.inputs.empty()) break;
    tensor = op.inputs.front();
  }
  return tensor;
}

std::string OpGraph::to_text() const {
  std::ostringstream text;
  text << "in: " << tensors_text(*this, model_inputs, {}) << "\n";
  for (const Op& op : ops) {
    text << op.name << ": " << op.kind << "("
         << tensors_text(*this, op.inputs, op.input_sites) << ") -> "
         << tensors_text(*this, op.outputs, op.output_sites);
    if (!op.params.empty()) text << " {" << params_text(op.params) << "}";
    if (op.role != OpRole::compute) text << " " << to_string(op.role);
    if (op.macs != 0) text << " macs=" << op.macs;
    if (op.multiplies_activations) text << " activations";
    if (op.rescale) text << " factor=" << *op.rescale;
    text << "\n";
  }
  text << "out: " << tensors_text(*this, model_outputs, {}) << "\n";
  return text.str();
}

}  // namespace aimetpp::graph
