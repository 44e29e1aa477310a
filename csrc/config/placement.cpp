// SPDX-License-Identifier: BSD-3-Clause
#include "config/placement.h"

#include <algorithm>
#include <limits>
#include <map>
#include <numeric>
#include <utility>

#include "config/hardware_rules.h"
#include "config/params.h"
#include "config/rule_sheet.h"
#include "core/text.h"
#include "fold/batch_norm_folds.h"

namespace aimetpp::config {

using graph::kNone;
using graph::Op;
using graph::OpGraph;
using graph::SiteKind;

namespace {

// Disjoint sets of sites that share a quantizer.
class SiteSets {
 public:
  explicit SiteSets(std::size_t num_sites) : parent_(num_sites) {
    std::iota(parent_.begin(), parent_.end(), 0);
  }
  int find(int site) {
    while (parent_[site] != site) {
      parent_[site] = parent_[parent_[site]];
      site = parent_[site];
    }
    return site;
  }
  void join(int a, int b) { parent_[find(a)] = find(b); }

 private:
  std::vector<int> parent_;
};

// Input sites that read the same values share one quantizer: each model input
// has one, however many ops read it.
void join_readers(const OpGraph& graph, RuleSheet& sheet, SiteSets& sets) {
  std::map<int, int> first_reader;  // by the tensor that holds the values
  for (const Op& op : graph.ops) {
    for (std::size_t slot = 0; slot < op.inputs.size(); ++slot) {
      const int site = op.input_sites[slot];
      if (site == kNone || !sheet[site].on) {
        continue;
      }
      const int source = graph.value_source(op.inputs[slot]);
      const auto [entry, added] = first_reader.try_emplace(source, site);
      if (!added && entry->second != site) {
        sets.join(site, entry->second);
        sheet.log(site, "graph", "same values",
                  "shares the quantizer of " + graph.site_name(entry->second));
      }
    }
  }
}

// A parameter read in several calls, or by several modules, is quantized once.
void join_params(const OpGraph& graph, RuleSheet& sheet, SiteSets& sets) {
  std::map<int, int> first_site;  // by parameter
  for (const Op& op : graph.ops) {
    for (const graph::Param& param : op.params) {
      if (param.parameter == kNone || !sheet[param.site].on) {
        continue;
      }
      const auto [entry, added] =
          first_site.try_emplace(param.parameter, param.site);
      if (!added && entry->second != param.site) {
        sets.join(param.site, entry->second);
        sheet.log(param.site, "graph", "same parameter",
                  "shares the quantizer of " + graph.site_name(entry->second));
      }
    }
  }
}

// The quantized sites of what an op with one grid makes: its output site or,
// where it has none, the input sites of its readers.
std::vector<int> sites_of_result(const OpGraph& graph, const RuleSheet& sheet,
                                 const Op& op) {
  std::vector<int> sites = {sheet.output_site(op.outputs.front())};
  if (op.call == kNone) {
    sites.clear();
    for (const graph::Use& use : graph.tensors[op.outputs.front()].uses) {
      sites.push_back(graph.ops[use.op].input_sites[use.slot]);
    }
  }
  std::erase_if(sites,
                [&](int site) { return site == kNone || !sheet[site].on; });
  return sites;
}

// A concatenation's inputs and output lie on one grid.
void join_ties(const OpGraph& graph, const QuantConfig& config,
               RuleSheet& sheet, SiteSets& sets) {
  for (const Op& op : graph.ops) {
    const std::size_t num_tied =
        num_tied_inputs(op, config.defaults.hw_version);
    if (num_tied == 0) {
      continue;
    }
    const std::vector<int> results = sites_of_result(graph, sheet, op);
    if (results.empty()) {
      continue;
    }
    const int output = results.front();
    const auto join = [&](int site) {
      if (sets.find(site) != sets.find(output)) {
        sets.join(site, output);
        sheet.log(site, "graph", "tie of " + op.name,
                  "shares the quantizer of " + graph.site_name(output));
      }
    };
    std::ranges::for_each(results, join);
    for (std::size_t slot = 0; slot < num_tied; ++slot) {
      int site = op.input_sites[slot];
      if (site == kNone || !sheet[site].on) {
        site = sheet.value_origin(op.inputs[slot]).site;
      }
      if (site != kNone) {
        join(site);
      }
    }
  }
}

// The smallest range that covers what every site is constrained to; a site that
// is free makes it free. A concatenation's output adds no values of its own, so
// it counts only where its op type has a constraint, which then decides.
std::optional<EncodingConstraints> shared_constraints(
    const OpGraph& graph, const QuantConfig& config, const RuleSheet& sheet,
    const std::vector<int>& sites) {
  constexpr double kInf = std::numeric_limits<double>::infinity();
  double min = kInf;
  double max = -kInf;
  for (const int site : sites) {
    const std::optional<EncodingConstraints>& own = sheet[site].constraints;
    const int op = graph.op_of_site(site);
    const bool ties =
        graph.sites[site].kind == SiteKind::output &&
        num_tied_inputs(graph.ops[op], config.defaults.hw_version) > 0;
    if (ties && sites.size() > 1) {
      if (own) {
        return own;
      }
      continue;
    }
    min = std::min(min, own && own->min ? *own->min : -kInf);
    max = std::max(max, own && own->max ? *own->max : kInf);
  }
  EncodingConstraints hull;
  if (min > -kInf && min < kInf) {
    hull.min = min;
  }
  if (max < kInf && max > -kInf) {
    hull.max = max;
  }
  return hull.min || hull.max ? std::optional(hull) : std::nullopt;
}

// `sites` in graph order.
QuantizerSpec make_spec(const OpGraph& graph, const RuleSheet& sheet,
                        const QuantConfig& config,
                        const PlacementDefaults& defaults,
                        std::vector<int> sites) {
  const SiteSettings& first = sheet[sites.front()];
  const bool is_param = graph.sites[sites.front()].kind == SiteKind::param;
  bool symmetric = first.symmetric;
  std::optional<double> masked_below;
  bool has_output = false;
  for (const int site : sites) {
    if (sheet[site].symmetric_by_op_type) {
      symmetric = sheet[site].symmetric;
    }
    has_output = has_output || graph.sites[site].kind == SiteKind::output;
    const int tensor = graph.tensor_of_site(site);
    const auto own =
        tensor == kNone ? std::nullopt : graph.tensors[tensor].masked_below;
    if (own) masked_below = std::max(masked_below.value_or(*own), *own);
  }
  const SiteKind activation_kind =
      has_output ? SiteKind::output : SiteKind::input;
  std::optional<EncodingConstraints> constraints;
  if (!is_param) {
    constraints = shared_constraints(graph, config, sheet, sites);
  }
  const bool is_centred = constraints && constraints->min && constraints->max &&
                          *constraints->min == -*constraints->max;
  const bool says_asymmetric = std::ranges::any_of(sites, [&](int site) {
    return sheet[site].symmetric_by_op_type && !sheet[site].symmetric;
  });
  symmetric = symmetric || (is_centred && !says_asymmetric);
  const int channel_axis = first.channel_axis;
  std::ranges::sort(sites);
  return {
      .precision = is_param ? defaults.param : defaults.activation,
      .symmetric = symmetric,
      .strict_symmetric = symmetric && config.defaults.strict_symmetric,
      .unsigned_symmetric = symmetric && config.defaults.unsigned_symmetric,
      .channel_axis = is_param ? channel_axis : kNone,
      .constraints = constraints,
      .kind = is_param ? SiteKind::param : activation_kind,
      .sites = std::move(sites),
      .masked_below = masked_below,
  };
}

// Also logs them, at the sites whose precisions they restrict.
std::vector<std::vector<SupportedKernel>> kernels_by_op(
    const OpGraph& graph, const QuantConfig& config, RuleSheet& sheet) {
  std::vector<std::vector<SupportedKernel>> kernels;
  kernels.reserve(graph.ops.size());
  for (const Op& op : graph.ops) {
    kernels.push_back(config.defaults.supported_kernels);
    std::string section = "defaults";
    std::string rule = "supported_kernels";
    for (const auto* entry : op_rules_of(op, config)) {
      if (entry->second.supported_kernels) {
        kernels.back() = *entry->second.supported_kernels;
        section = "op_type";
        rule = entry->first + ".supported_kernels";
      }
    }
    if (kernels.back().empty()) {
      continue;
    }
    const std::string effect =
        "restricted to " + join(kernels.back(), &SupportedKernel::name);
    const int weight = weight_of(graph, op);
    if (weight != kNone) {
      sheet.log(op.params[weight].site, section, rule, effect);
      continue;
    }
    for (const int site : op.output_sites) {
      if (site != kNone) {
        sheet.log(site, section, rule, effect);
      }
    }
  }
  return kernels;
}

// Ops whose result another op of their chain quantizes.
std::vector<bool> fused_ops(const OpGraph& graph,
                            const std::vector<Supergroup>& supergroups) {
  std::vector<bool> fused(graph.ops.size(), false);
  for (const auto& [before, batch_norm] : fold::foldable_batch_norms(graph)) {
    fused[before] = true;
  }
  for (const Supergroup& group : supergroups) {
    for (std::size_t i = 0; i + 1 < group.ops.size(); ++i) {
      fused[group.ops[i]] = true;
    }
  }
  return fused;
}

}  // namespace

std::vector<int> sites_in_graph_order(const OpGraph& graph) {
  std::vector<int> order;
  std::vector<bool> seen(graph.sites.size(), false);
  const auto add = [&](int site) {
    if (site != kNone && !seen[site]) {
      seen[site] = true;
      order.push_back(site);
    }
  };
  for (const Op& op : graph.ops) {
    std::ranges::for_each(op.input_sites, add);
    for (const graph::Param& param : op.params) {
      add(param.site);
    }
    std::ranges::for_each(op.output_sites, add);
  }
  return order;
}

Placement place_quantizers(const OpGraph& graph, const QuantConfig& config,
                           const PlacementDefaults& defaults) {
  RuleSheet sheet(graph);
  apply_defaults(graph, config, sheet);
  apply_params(graph, config, sheet);
  apply_op_types(graph, config, sheet);
  apply_batch_norm_folds(graph, sheet);
  Placement placement;
  placement.supergroups = match_supergroups(graph, config.supergroups);
  apply_supergroups(graph, config, placement.supergroups, sheet);
  if (config.model_input_is_input_quantized.value_or(false)) {
    apply_model_input(graph, sheet);
  }
  if (config.model_output_is_output_quantized.value_or(false)) {
    apply_model_output(graph, sheet);
  }
  if (defaults.activation.is_integer()) {
    placement.rescales = apply_rescales(graph, config, sheet);
  }

  SiteSets sets(graph.sites.size());
  join_readers(graph, sheet, sets);
  join_params(graph, sheet, sets);
  join_ties(graph, config, sheet, sets);
  std::map<int, std::size_t> index_of_set;
  std::vector<std::vector<int>> members;  // of each quantizer, in graph order
  for (const int site : sites_in_graph_order(graph)) {
    if (sheet[site].on) {
      const auto [entry, added] =
          index_of_set.try_emplace(sets.find(site), members.size());
      if (added) {
        members.emplace_back();
      }
      members[entry->second].push_back(site);
    }
  }

  placement.quantizer_of_site.assign(graph.sites.size(), kNone);
  for (const std::vector<int>& sites : members) {
    for (const int site : sites) {
      placement.quantizer_of_site[site] =
          static_cast<int>(placement.quantizers.size());
    }
    placement.quantizers.push_back(
        make_spec(graph, sheet, config, defaults, sites));
  }
  placement.is_fused = fused_ops(graph, placement.supergroups);
  placement.kernels_of_op = kernels_by_op(graph, config, sheet);
  placement.rules = sheet.take_log();
  apply_hardware_rules(graph, config.defaults.hw_version, placement);
  return placement;
}

int quantizer_of_input(const OpGraph& graph, const Placement& placement, int op,
                       int slot) {
  const Op& reader = graph.ops[op];
  if (slot < 0 || slot >= static_cast<int>(reader.inputs.size())) {
    return kNone;
  }
  const auto is_on = [&](int site) {
    return placement.quantizer_at(site) != kNone;
  };
  int site = reader.input_sites[slot];
  if (!is_on(site)) {
    const auto passes = [&](int walked) {
      return placement.keeps_precision(graph, walked);
    };
    site = find_value_origin(graph, reader.inputs[slot], is_on, passes).site;
  }
  return placement.quantizer_at(site);
}

int quantizer_covering(const OpGraph& graph, const Placement& placement,
                       int site) {
  const int op = graph.op_of_site(site);
  const int own = placement.quantizer_at(site);
  if (own != kNone || op == kNone) {
    return own;
  }
  const graph::Site& record = graph.sites[site];
  if (record.kind == SiteKind::input) {
    return quantizer_of_input(graph, placement, op, record.slot);
  }
  const bool keeps =
      record.kind == SiteKind::output && placement.keeps_precision(graph, op);
  return keeps ? quantizer_of_input(graph, placement, op, 0) : kNone;
}

}  // namespace aimetpp::config
