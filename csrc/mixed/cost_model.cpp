// SPDX-License-Identifier: BSD-3-Clause
#include "mixed/cost_model.h"

#include <cmath>

#include "core/error.h"
#include "core/text.h"

namespace aimetpp::mixed {
namespace {

using graph::kNone;
using graph::Op;
using graph::OpGraph;

Precision precision_of(int quantizer,
                       const std::vector<Precision>& precisions) {
  if (quantizer == kNone) return Precision::fp32();
  if (quantizer < 0 || quantizer >= static_cast<int>(precisions.size())) {
    raise_value_error("bit_ops: one precision for each quantizer is required; ",
                      "quantizer ", quantizer, " is used, got ",
                      precisions.size(), " precisions");
  }
  return precisions[quantizer];
}

double bit_ops_of(const CostTerm& term, Precision lhs, Precision rhs) {
  return static_cast<double>(term.macs) * lhs.bitwidth() * rhs.bitwidth();
}

std::int64_t last_dim(const OpGraph& graph, int tensor) {
  const auto& shape = graph.tensors[tensor].shape;
  return shape.empty() ? 1 : shape.back();
}

class TermBuilder {
 public:
  TermBuilder(const OpGraph& graph, const config::Placement& placement,
              std::vector<CostTerm>* terms)
      : graph_(graph), placement_(placement), terms_(terms) {}

  void add(int op_index) {
    const Op& op = graph_.ops[op_index];
    if (op.macs == 0) return;
    if (op.kind == "scaled_dot_product_attention") {
      add_attention(op_index, op);
    } else if (op.multiplies_activations) {
      // addmm(bias, a, b) and its batched forms start with the addend.
      const bool addend_first =
          op.kind == "addmm" || op.kind == "baddbmm" || op.kind == "addbmm";
      const int first = addend_first && op.inputs.size() > 2 ? 1 : 0;
      terms_->push_back(
          {op.macs, operand(op_index, first), operand(op_index, first + 1)});
    } else {
      add_weighted(op_index, op);
    }
  }

 private:
  [[nodiscard]] int operand(int op, int slot) const {
    const auto& inputs = graph_.ops[op].inputs;
    if (slot >= static_cast<int>(inputs.size())) return kNone;
    return config::quantizer_of_input(graph_, placement_, op, slot);
  }

  // softmax(q k^T) v: q x k takes a share E of the MACs, probabilities x v a
  // share Ev (the last dimensions of q and v). The probabilities stay inside
  // the op, where nothing quantizes them.
  void add_attention(int op_index, const Op& op) const {
    if (op.inputs.size() < 3) {
      raise_value_error("cost model: ", op.name,
                        " must have query, key and value as inputs, got ",
                        op.inputs.size(), " inputs");
    }
    const std::int64_t embed = last_dim(graph_, op.inputs[0]);
    const std::int64_t value_embed = last_dim(graph_, op.inputs[2]);
    const std::int64_t scores = op.macs / (embed + value_embed) * embed;
    terms_->push_back({scores, operand(op_index, 0), operand(op_index, 1)});
    terms_->push_back({op.macs - scores, kNone, operand(op_index, 2)});
  }

  // One term per weight matrix, MACs in proportion to its size: exact for one
  // matrix, and for LSTM and GRU, where each is applied once per step.
  void add_weighted(int op_index, const Op& op) const {
    std::int64_t total = 0;
    for (const graph::Param& param : op.params) {
      if (param.shape.size() > 1) total += graph::num_elements(param.shape);
    }
    const int lhs = operand(op_index, 0);
    if (total == 0) {  // the weight came in as a tensor
      terms_->push_back({op.macs, lhs, operand(op_index, 1)});
      return;
    }
    std::int64_t left = op.macs;
    for (const graph::Param& param : op.params) {
      if (param.shape.size() < 2) continue;
      const std::int64_t size = graph::num_elements(param.shape);
      const auto share = static_cast<std::int64_t>(
          std::llround(static_cast<double>(left) * static_cast<double>(size) /
                       static_cast<double>(total)));
      terms_->push_back({share, lhs, placement_.quantizer_at(param.site)});
      left -= share;
      total -= size;
    }
  }

  const OpGraph& graph_;
  const config::Placement& placement_;
  std::vector<CostTerm>* terms_;
};

}  // namespace

double CostTerm::cost(Precision lhs_precision, Precision rhs_precision) const {
  if (costs.empty()) return bit_ops_of(*this, lhs_precision, rhs_precision);
  const auto found = costs.find({lhs_precision, rhs_precision});
  if (found != costs.end()) return found->second;
  raise_value_error("cost table: ", op, " has no cost for (",
                    lhs_precision.name(), ", ", rhs_precision.name(),
                    "); it has ", join(costs, [](const auto& entry) {
                      return "(" + entry.first.first.name() + ", " +
                             entry.first.second.name() + ")";
                    }));
}

double CostModel::bit_ops(const std::vector<Precision>& precisions) const {
  double total = 0;
  for (const CostTerm& term : terms) {
    total += bit_ops_of(term, precision_of(term.lhs, precisions),
                        precision_of(term.rhs, precisions));
  }
  return total;
}

double CostModel::cost(const std::vector<Precision>& precisions) const {
  double total = 0;
  for (const CostTerm& term : terms) {
    total += term.cost(precision_of(term.lhs, precisions),
                       precision_of(term.rhs, precisions));
  }
  return total;
}

CostModel build_cost_model(const graph::OpGraph& graph,
                           const config::Placement& placement) {
  CostModel model;
  TermBuilder builder(graph, placement, &model.terms);
  for (int op = 0; op < static_cast<int>(graph.ops.size()); ++op) {
    builder.add(op);
  }
  return model;
}

}  // namespace aimetpp::mixed
