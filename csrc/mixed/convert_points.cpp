// SPDX-License-Identifier: BSD-3-Clause
#include "mixed/convert_points.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "core/error.h"
#include "mixed/quantizer_route.h"

namespace aimetpp::mixed {
namespace {

using config::Placement;
using graph::kNone;
using graph::Op;
using graph::OpGraph;
using graph::OpRole;
using graph::Tensor;

// A tensor, and the quantizer in whose precision it is; kNone: no integers.
struct Value {
  int tensor = kNone;
  int quantizer = kNone;
};

class PointFinder {
 public:
  PointFinder(const OpGraph& graph, const Placement& placement)
      : graph_(graph), placement_(placement), value_of_(graph.tensors.size()) {}

  std::vector<ConvertPoint> find() {
    for (int op = 0; op < static_cast<int>(graph_.ops.size()); ++op) {
      if (graph_.ops[op].role != OpRole::metadata) visit(op);
    }
    std::vector<ConvertPoint> points;
    for (const auto& [from, readers] : readers_) {
      ConvertPoint point;
      point.tensor = name_of(from.first);
      point.elements =
          graph::num_elements(graph_.tensors[from.first].shape) / graph_.batch;
      point.from = from.second;
      point.to.assign(readers.begin(), readers.end());
      points.push_back(std::move(point));
    }
    return points;
  }

 private:
  void visit(int index) {
    const Op& op = graph_.ops[index];
    if (op.role == OpRole::grid_preserving) {
      const Value moved = op.inputs.empty() ? Value{} : read(index, 0);
      for (std::size_t slot = 0; slot < op.outputs.size(); ++slot) {
        put_out(op, slot, moved);
      }
      return;
    }
    const int computes_in = precision_of(index);
    for (std::size_t slot = 0; slot < op.inputs.size(); ++slot) {
      const Value value = read(index, static_cast<int>(slot));
      note(value_of_[op.inputs[slot]], value.quantizer);
      note(value, computes_in);
    }
    for (std::size_t slot = 0; slot < op.outputs.size(); ++slot) {
      put_out(op, slot, {op.outputs[slot], computes_in});
    }
  }

  // What an op puts out is in the precision of the quantizer that stands there.
  void put_out(const Op& op, std::size_t slot, const Value& value) {
    Value& result = value_of_[op.outputs[slot]];
    result = value;
    const int quantizer = placement_.quantizer_at(op.output_sites[slot]);
    if (quantizer == kNone) return;
    note(value, quantizer);
    result = {op.outputs[slot], quantizer};
  }

  [[nodiscard]] Value read(int op, int slot) const {
    const int tensor = graph_.ops[op].inputs[slot];
    const int own = placement_.quantizer_at(graph_.ops[op].input_sites[slot]);
    return own != kNone ? Value{tensor, own} : value_of_[tensor];
  }

  [[nodiscard]] int precision_of(int index) const {
    const Op& op = graph_.ops[index];
    const bool has_params =
        std::ranges::any_of(op.params, [&](const graph::Param& param) {
          return placement_.quantizer_at(param.site) != kNone;
        });
    if (has_params && !op.inputs.empty()) return read(index, 0).quantizer;
    for (const int site : op.output_sites) {
      if (placement_.quantizer_at(site) != kNone) {
        return placement_.quantizer_at(site);
      }
    }
    if (placement_.is_fused[index]) {
      const auto route = route_of_output(graph_, placement_, index, 0);
      if (!route.quantizers.empty()) return route.quantizers.front();
    }
    return op.inputs.empty() ? kNone : read(index, 0).quantizer;
  }

  void note(const Value& value, int reader) {
    if (value.quantizer == kNone || reader == kNone) return;
    if (value.quantizer == reader) return;
    readers_[{value.tensor, value.quantizer}].insert(reader);
  }

  [[nodiscard]] std::string name_of(int tensor) const {
    const Tensor& record = graph_.tensors[tensor];
    if (record.producer != kNone) return graph_.ops[record.producer].name;
    return record.model_input != kNone
               ? "model input " + std::to_string(record.model_input)
               : std::string(graph::to_string(record.origin));
  }

  const OpGraph& graph_;
  const Placement& placement_;
  std::vector<Value> value_of_;  // by tensor
  std::map<std::pair<int, int>, std::set<int>> readers_;
};

}  // namespace

std::vector<ConvertPoint> find_convert_points(const OpGraph& graph,
                                              const Placement& placement) {
  return PointFinder(graph, placement).find();
}

double convert_op_cost(const ConvertPoint& point, Precision from, Precision to,
                       const ConvertTable& table) {
  if (from == to) return 0;
  const auto elements = static_cast<double>(point.elements);
  if (table.empty()) return elements * (from.bitwidth() + to.bitwidth()) / 8;
  const auto found = table.find({from, to});
  if (found == table.end()) {
    raise_value_error("convert costs: a cost for (", from.name(), ", ",
                      to.name(), ") is required, for the output of ",
                      point.tensor);
  }
  if (!(found->second >= 0) || std::isinf(found->second)) {
    raise_value_error("convert costs: (", from.name(), ", ", to.name(),
                      ") must cost a number that is not negative, got ",
                      found->second);
  }
  return elements * found->second;
}

double convert_cost(const std::vector<ConvertPoint>& points,
                    const std::vector<Precision>& precisions,
                    const ConvertTable& table) {
  double total = 0;
  for (const ConvertPoint& point : points) {
    std::set<Precision> targets;
    for (const int quantizer : point.to) targets.insert(precisions[quantizer]);
    for (const Precision& target : targets) {
      total += convert_op_cost(point, precisions[point.from], target, table);
    }
  }
  return total;
}

}  // namespace aimetpp::mixed
