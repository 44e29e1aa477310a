// SPDX-License-Identifier: BSD-3-Clause
#include "mixed/cost_table.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <utility>

#include "core/error.h"

namespace aimetpp::mixed {
namespace {

using graph::kNone;
using graph::Op;
using graph::OpGraph;
using graph::OpRole;

using PairCosts = std::map<std::pair<Precision, Precision>, double>;

// Of an op without a weight, by (activation, full precision).
Precision param_of(const CostRow& row) {
  return row.param.value_or(Precision::fp32());
}

std::map<std::string, PairCosts> rows_by_op(const std::vector<CostRow>& rows) {
  std::map<std::string, PairCosts> costs;
  for (const CostRow& row : rows) {
    const std::string where =
        concat("cost table: (", row.op, ", ", row.activation.name(), ", ",
               row.param ? row.param->name() : "none", ")");
    if (!(row.cost >= 0) || std::isinf(row.cost)) {
      raise_value_error(where, " must be finite and not negative, got ",
                        row.cost);
    }
    const auto key = std::make_pair(row.activation, param_of(row));
    if (!costs[row.op].emplace(key, row.cost).second) {
      raise_value_error(where, " is there twice");
    }
  }
  return costs;
}

// The two quantizers whose precisions an op's kernel takes.
std::pair<int, int> operands(const OpGraph& graph,
                             const config::Placement& placement, int index) {
  const Op& op = graph.ops[index];
  const auto input = [&](int slot) {
    return slot < static_cast<int>(op.inputs.size())
               ? config::quantizer_of_input(graph, placement, index, slot)
               : kNone;
  };
  if (op.multiplies_activations) return {input(0), input(1)};
  for (const graph::Param& param : op.params) {
    const int quantizer = placement.quantizer_at(param.site);
    if (quantizer != kNone && param.shape.size() > 1) {
      return {input(0), quantizer};
    }
  }
  for (const int site : op.output_sites) {
    if (placement.quantizer_at(site) != kNone) {
      return {placement.quantizer_at(site), kNone};
    }
  }
  return {kNone, kNone};
}

// The precisions that a quantizer may have, each with the candidate that gives
// it; kOff where it is in no group.
struct Choices {
  int group = kNone;
  std::vector<std::pair<int, Precision>> precisions;
};

Choices choices_of(const SearchProblem& problem, int quantizer) {
  Choices choices;
  if (quantizer == kNone) {
    choices.precisions = {{kOff, Precision::fp32()}};
    return choices;
  }
  for (int g = 0; g < static_cast<int>(problem.groups.size()); ++g) {
    const SearchGroup& group = problem.groups[g];
    const auto has = [&](const std::vector<int>& members) {
      return std::ranges::find(members, quantizer) != members.end();
    };
    const bool activation = has(group.activation_quantizers);
    if (!activation && !has(group.param_quantizers)) continue;
    choices.group = g;
    for (const int index : group.candidates) {
      const Candidate& candidate = problem.candidates[index];
      choices.precisions.emplace_back(
          index, activation ? candidate.activation : candidate.param);
    }
    return choices;
  }
  choices.precisions = {{kOff, problem.fixed_precisions[quantizer]}};
  return choices;
}

}  // namespace

CostModel build_table_cost_model(const OpGraph& graph,
                                 const config::Placement& placement,
                                 const std::vector<CostRow>& rows) {
  const auto costs = rows_by_op(rows);
  std::set<std::string> used;
  CostModel model;
  for (int index = 0; index < static_cast<int>(graph.ops.size()); ++index) {
    const Op& op = graph.ops[index];
    if (op.role != OpRole::compute) continue;
    const auto operand = operands(graph, placement, index);
    const bool free = op.macs == 0 && operand.first == kNone;
    auto found = costs.end();
    for (const std::string& name : {op.name, op.onnx_type, op.kind}) {
      if (found == costs.end()) found = costs.find(name);
    }
    if (found == costs.end() && op.macs > 0) {
      raise_value_error("cost table: rows for ", op.name, ", ", op.onnx_type,
                        " or ", op.kind, " are required");
    }
    if (found == costs.end()) continue;
    used.insert(found->first);
    if (free) continue;  // inside a supergroup: part of its first op's kernel
    CostTerm term{op.macs, operand.first, operand.second};
    term.op = op.name;
    term.costs = found->second;
    model.terms.push_back(std::move(term));
  }
  for (const auto& [op, pairs] : costs) {
    if (!used.contains(op)) {
      raise_value_error("cost table: no op of the model has the name, ONNX ",
                        "type or kind ", op);
    }
  }
  return model;
}

void check_cost_table(const SearchProblem& problem) {
  for (const CostTerm& term : problem.cost_model.terms) {
    if (term.costs.empty()) continue;
    const Choices lhs = choices_of(problem, term.lhs);
    const Choices rhs = choices_of(problem, term.rhs);
    for (const auto& [left, activation] : lhs.precisions) {
      for (const auto& [right, param] : rhs.precisions) {
        const bool apart = lhs.group == kNone || lhs.group != rhs.group;
        if (!apart && left != right) continue;  // no candidate has both
        static_cast<void>(term.cost(activation, param));
      }
    }
  }
}

}  // namespace aimetpp::mixed
