// SPDX-License-Identifier: BSD-3-Clause
#include "graph/mac_count.h"

#include <algorithm>
#include <map>

#include "core/error.h"

namespace aimetpp::graph {
namespace {

using Shape = std::vector<std::int64_t>;

class MacCounter {
 public:
  MacCounter(const FlatIr& ir, const IrNode& node)
      : ir_(ir), node_(node), kind_(node_kind(ir, node)) {}

  [[nodiscard]] std::optional<MacCount> count() const {
    if (kind_.starts_with("conv_transpose")) return conv(shape_of(value_at(0)));
    if (kind_.starts_with("conv") || kind_ == "deform_conv2d") {
      return conv(output_shape());
    }
    if (kind_ == "bilinear") return bilinear();
    if (kind_ == "linear" || kind_ == "matmul" || kind_ == "mm" ||
        kind_ == "bmm" || kind_ == "mv" || kind_ == "dot" || kind_ == "inner") {
      return product(0);
    }
    if (kind_ == "addmm" || kind_ == "baddbmm" || kind_ == "addmv") {
      return product(1);
    }
    if (kind_ == "addbmm") return addbmm();
    if (kind_ == "einsum") return einsum();
    if (kind_ == "scaled_dot_product_attention") return attention();
    const bool recurrent = kind_ == "lstm" || kind_ == "gru" ||
                           kind_.starts_with("rnn_") ||
                           kind_.ends_with("_cell");
    return recurrent ? recurrence() : std::nullopt;
  }

 private:
  [[nodiscard]] int value_at(std::size_t arg) const {
    if (arg >= node_.args.size() || node_.args[arg].tensors.empty()) {
      raise_runtime_error("read_jit_graph: argument ", arg, " of ", node_.kind,
                          at_source(node_.source), " must be a tensor");
    }
    return node_.args[arg].tensors.front();
  }

  [[nodiscard]] const Shape& shape_of(int value) const {
    const IrValue& v = ir_.values[value];
    if (!v.shape) {
      raise_runtime_error("read_jit_graph: the multiply-accumulates of ",
                          node_.kind, at_source(node_.source),
                          " need the shape of %", v.name,
                          ", which the trace does not have");
    }
    return *v.shape;
  }

  [[nodiscard]] const Shape& output_shape() const {
    if (node_.outputs.empty()) {
      raise_runtime_error("read_jit_graph: ", node_.kind,
                          at_source(node_.source), " must have an output");
    }
    return shape_of(node_.outputs.front());
  }

  // Each element of the tensor that the kernel moves over (the output; for a
  // transposed convolution, the input) meets weight[i], for one i.
  [[nodiscard]] MacCount conv(const Shape& moved) const {
    const int weight = value_at(1);
    const Shape& kernel = shape_of(weight);
    if (kernel.empty() || kernel.front() == 0) return {0, value_at(0), weight};
    return {num_elements(moved) * (num_elements(kernel) / kernel.front()),
            value_at(0), weight};
  }

  // out[o] = lhs . weight[o] . rhs
  [[nodiscard]] MacCount bilinear() const {
    const Shape& weight = shape_of(value_at(2));
    const std::int64_t per_output =
        weight.size() == 3 ? weight[1] * weight[2] : 0;
    return {num_elements(output_shape()) * per_output, value_at(0),
            value_at(2)};
  }

  // Argument `first` times the next one, contracted over the last dimension of
  // the former.
  [[nodiscard]] MacCount product(std::size_t first) const {
    const int lhs = value_at(first);
    const Shape& shape = shape_of(lhs);
    const std::int64_t contracted = shape.empty() ? 1 : shape.back();
    return {num_elements(output_shape()) * contracted, lhs,
            value_at(first + 1)};
  }

  [[nodiscard]] MacCount addbmm() const {
    const Shape& rhs = shape_of(value_at(2));
    const std::int64_t columns = rhs.empty() ? 1 : rhs.back();
    return {num_elements(shape_of(value_at(1))) * columns, value_at(1),
            value_at(2)};
  }

  [[nodiscard]] MacCount attention() const {
    const Shape& query = shape_of(value_at(0));
    const Shape& key = shape_of(value_at(1));
    const Shape& value = shape_of(value_at(2));
    if (query.size() < 2 || key.size() < 2 || value.empty() ||
        query.back() == 0) {
      return {0, value_at(0), value_at(1)};
    }
    const std::int64_t query_rows = num_elements(query) / query.back();
    const std::int64_t key_rows = key[key.size() - 2];
    return {query_rows * key_rows * (query.back() + value.back()), value_at(0),
            value_at(1)};
  }

  // lstm(input, hx[], params[], ...), gru(input, hx, params[], ...) and the
  // cells, whose weights are arguments of their own. A packed sequence has its
  // batch sizes as second argument; its input has one row per step, too.
  [[nodiscard]] std::optional<MacCount> recurrence() const {
    const Shape& input = shape_of(value_at(0));
    std::int64_t weights = 0;
    int first_weight = kNone;
    for (std::size_t arg = 2; arg < node_.args.size(); ++arg) {
      for (const int value : node_.args[arg].tensors) {
        const Shape& shape = shape_of(value);
        if (shape.size() != 2) continue;  // a bias, or a hidden state
        weights += num_elements(shape);
        if (first_weight == kNone) first_weight = value;
      }
    }
    if (first_weight == kNone || input.empty() || input.back() == 0) {
      return std::nullopt;
    }
    const std::int64_t rows = num_elements(input) / input.back();
    return MacCount{rows * weights, value_at(0), first_weight};
  }

  // The letters of one operand's subscripts with their sizes; the dimensions of
  // "..." are named by their distance from its end, so that operands share
  // them.
  static void add_subscripts(const std::string& subscripts, const Shape& shape,
                             std::map<std::string, std::int64_t>& sizes) {
    const auto note = [&](const std::string& name, std::int64_t size) {
      auto [entry, added] = sizes.try_emplace(name, size);
      if (!added) entry->second = std::max(entry->second, size);
    };
    const auto letters = static_cast<std::size_t>(
        std::ranges::count_if(subscripts, [](char c) { return c != '.'; }));
    const std::size_t hidden =
        shape.size() > letters ? shape.size() - letters : 0;
    std::size_t axis = 0;
    for (std::size_t i = 0; i < subscripts.size(); ++i) {
      if (subscripts[i] == '.') {
        for (std::size_t left = hidden; left > 0; --left, ++axis) {
          note("..." + std::to_string(left), shape[axis]);
        }
        i += 2;
      } else if (axis < shape.size()) {
        note(std::string(1, subscripts[i]), shape[axis++]);
      }
    }
  }

  // einsum(equation, tensors[]).
  [[nodiscard]] std::optional<MacCount> einsum() const {
    if (node_.args.size() < 2 || node_.args[1].tensors.size() < 2) {
      return std::nullopt;  // one tensor: a sum or a transposition
    }
    std::string equation = node_.args[0].text;
    std::erase(equation, ' ');
    equation = equation.substr(0, equation.find("->"));
    std::map<std::string, std::int64_t> sizes;
    std::size_t start = 0;
    for (const int value : node_.args[1].tensors) {
      const std::size_t end =
          std::min(equation.find(',', start), equation.size());
      add_subscripts(equation.substr(start, end - start), shape_of(value),
                     sizes);
      start = std::min(end + 1, equation.size());
    }
    std::int64_t macs = 1;
    for (const auto& [name, size] : sizes) macs *= size;
    return MacCount{macs, node_.args[1].tensors[0], node_.args[1].tensors[1]};
  }

  const FlatIr& ir_;
  const IrNode& node_;
  std::string kind_;
};

}  // namespace

std::optional<MacCount> count_macs(const FlatIr& ir, const IrNode& node) {
  return MacCounter(ir, node).count();
}

}  // namespace aimetpp::graph
