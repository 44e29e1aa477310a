// SPDX-License-Identifier: BSD-3-Clause
#include "graph/onnx_reader.h"

#include <algorithm>
#include <set>
#include <string_view>
#include <utility>

#include "core/error.h"
#include "graph/assembly.h"
#include "graph/flat_ir.h"
#include "graph/onnx_table.h"
#include "graph/op_traits.h"

namespace aimetpp::graph {
namespace {

bool is_recurrent(const std::string& type) {
  return type == "LSTM" || type == "GRU" || type == "RNN";
}

// Types whose operands may be masks, see graph/masks.h.
bool is_masking(const std::string& type) {
  return type == "Add" || type == "Sub" || type == "Where";
}

class Reader {
 public:
  explicit Reader(const OnnxGraph& onnx) : onnx_(onnx) { check_indices(); }

  OnnxReading run() {
    find_biases();
    for (const OnnxValue& value : onnx_.values) {
      ir_.values.push_back({value.name, value.is_floating, false, value.shape,
                            kNone, value.number});
    }
    ir_.inputs = onnx_.inputs;
    ir_.outputs = onnx_.outputs;
    for (int n = 0; n < static_cast<int>(onnx_.nodes.size()); ++n) {
      const OnnxNode& node = onnx_.nodes[n];
      if (is_constant(node) || matmul_with_bias_.contains(n)) continue;
      if (is_call(node)) {
        read_call(n);
      } else {
        add_node(kind_of(node), arguments_of(node, node.inputs), node.outputs);
      }
    }
    OnnxReading reading;
    reading.graph = assemble_op_graph(ir_, std::move(calls_), std::move(sites_),
                                      static_cast<int>(ir_.inputs.size()));
    name_ops(reading.graph);
    reading.places = std::move(places_);
    return reading;
  }

 private:
  // A MatMul and the Add behind it.
  struct Linear {
    int matmul = kNone;
    int bias = kNone;  // input of the Add
  };

  void check_indices() const {
    const int size = static_cast<int>(onnx_.values.size());
    const auto check = [&](const std::vector<int>& indices,
                           const std::string& where) {
      for (const int index : indices) {
        if (index < kNone || index >= size) {
          raise_value_error("read_onnx_graph: ", where,
                            " has a value index of ", index, "; there are ",
                            size, " values");
        }
      }
    };
    check(onnx_.inputs, "the graph");
    check(onnx_.outputs, "the graph");
    for (const OnnxNode& node : onnx_.nodes) {
      check(node.inputs, node.name);
      check(node.outputs, node.name);
      check(node.captured, node.name);
    }
  }

  [[nodiscard]] bool varies(int value) const {
    return value != kNone && onnx_.values[value].origin == OnnxOrigin::computed;
  }
  [[nodiscard]] bool is_floating(int value) const {
    return value != kNone && onnx_.values[value].is_floating;
  }
  [[nodiscard]] bool is_constant(const OnnxNode& node) const {
    return std::ranges::none_of(node.outputs,
                                [&](int value) { return varies(value); });
  }
  [[nodiscard]] bool is_call(const OnnxNode& node) const {
    return op_traits(kind_of(node)).role != OpRole::metadata &&
           std::ranges::any_of(node.outputs,
                               [&](int value) { return is_floating(value); });
  }

  [[nodiscard]] std::string kind_of(const OnnxNode& node) const {
    const auto rank = [&](int value) {
      const auto& shape = onnx_.values[value].shape;
      return shape ? static_cast<int>(shape->size()) : 0;
    };
    if (node.op_type == "Gemm") return "linear";
    if (node.op_type == "Conv" || node.op_type == "ConvTranspose") {
      const int spatial = rank(node.inputs.at(1)) - 2;
      return (node.op_type == "Conv" ? "conv" : "conv_transpose") +
             std::to_string(std::max(spatial, 1)) + "d";
    }
    if (node.op_type == "Gather" && !varies(node.inputs.at(0))) {
      return "embedding";
    }
    const bool resizes = node.op_type == "Resize" || node.op_type == "Upsample";
    if (resizes && text(node, "mode", "nearest") == "nearest") {
      return "upsample_nearest";
    }
    return kind_of_onnx_type(node.op_type);
  }

  // -- linear layers with a bias ----------------------------------------------

  void find_biases() {
    std::vector<int> reads(onnx_.values.size(), 0);
    std::vector<int> producer(onnx_.values.size(), kNone);
    for (int n = 0; n < static_cast<int>(onnx_.nodes.size()); ++n) {
      const OnnxNode& node = onnx_.nodes[n];
      for (const auto* values : {&node.inputs, &node.captured}) {
        for (const int value : *values) {
          if (value != kNone) ++reads[value];
        }
      }
      for (const int value : node.outputs) {
        if (value != kNone) producer[value] = n;
      }
    }
    for (const int value : onnx_.outputs) ++reads[value];
    for (int n = 0; n < static_cast<int>(onnx_.nodes.size()); ++n) {
      const OnnxNode& add = onnx_.nodes[n];
      if (add.op_type != "Add" || add.inputs.size() != 2) continue;
      for (const int slot : {0, 1}) {
        const int sum = add.inputs[1 - slot];
        const int matmul = sum == kNone ? kNone : producer[sum];
        if (matmul != kNone && reads[sum] == 1 &&
            is_bias_of(add.inputs[slot], onnx_.nodes[matmul])) {
          linear_[n] = {matmul, slot};
          matmul_with_bias_.insert(matmul);
          break;
        }
      }
    }
  }

  // A stored vector with an element for each column of the weight.
  [[nodiscard]] bool is_bias_of(int value, const OnnxNode& node) const {
    if (node.op_type != "MatMul" || value == kNone || varies(value) ||
        !is_floating(value) || !varies(node.inputs[0]) ||
        varies(node.inputs[1])) {
      return false;
    }
    const auto& weight = onnx_.values[node.inputs[1]].shape;
    const auto& bias = onnx_.values[value].shape;
    return weight && bias && weight->size() == 2 && bias->size() == 1 &&
           bias->front() == weight->back();
  }

  // -- calls
  // --------------------------------------------------------------------

  void read_call(int n) {
    const OnnxNode& node = onnx_.nodes[n];
    const auto linear = linear_.find(n);
    const bool has_bias = linear != linear_.end();
    const int layer = has_bias ? linear->second.matmul : n;
    const OnnxNode& source = onnx_.nodes[layer];
    const std::string kind = has_bias ? "linear" : kind_of(source);
    calls_.push_back({"", 0, true, kind, "", source.name});
    types_.push_back(has_bias ? "Gemm" : source.op_type);
    slots_ = 0;
    std::vector<int> values = source.inputs;
    for (int i = 0; i < static_cast<int>(values.size()); ++i) {
      values[i] = mark_input(layer, i);
    }
    if (has_bias) {
      const int bias = linear->second.bias;
      values.push_back(mark_param(n, bias, "bias", 2));
    }
    std::vector<int> inner = node.outputs;
    for (int& value : inner) {
      if (is_floating(value)) value = copy_of(value);
    }
    add_node(kind, arguments_of(source, values), inner);
    int slot = 0;
    for (int i = 0; i < static_cast<int>(inner.size()); ++i) {
      const int value = node.outputs[i];
      if (!is_floating(value)) continue;
      add_marker(add_site(SiteKind::output, slot++, value, {n, i}), inner[i],
                 value);
    }
  }

  // The value that the call reads at an input: marked, where that is a site.
  int mark_input(int n, int input) {
    const OnnxNode& node = onnx_.nodes[n];
    const int index = node.inputs[input];
    if (!is_floating(index) || !is_onnx_data_input(node.op_type, input)) {
      return index;
    }
    const OnnxValue& value = onnx_.values[index];
    if (value.origin != OnnxOrigin::computed) {
      const std::string_view own = onnx_param_name(node.op_type, input);
      if (!own.empty()) return mark_param(n, input, std::string(own), input);
      if (value.number) return number_of(*value.number);
      if (value.origin == OnnxOrigin::parameter && !is_mask(node, input)) {
        return mark_param(n, input, value.name, input);
      }
    }
    const int site =
        add_site(SiteKind::input, slots_++, index, OnnxPlace{n, input});
    if (is_masking(node.op_type) && !node.masks.empty()) {
      sites_[site].mask = node.masks.at(input);
    }
    return mark(site, index);
  }

  [[nodiscard]] static bool is_mask(const OnnxNode& node, int input) {
    return is_masking(node.op_type) && !node.masks.empty() &&
           node.masks.at(input).values == MaskValues::mask;
  }

  int mark_param(int n, int input, std::string name, int argument) {
    const int index = onnx_.nodes[n].inputs[input];
    const int site = add_site(SiteKind::param, argument, index, {n, input});
    sites_[site].param = std::move(name);
    return mark(site, index);
  }

  int add_site(SiteKind kind, int slot, int value, OnnxPlace place) {
    const int id = static_cast<int>(sites_.size());
    const int call = static_cast<int>(calls_.size()) - 1;
    sites_.push_back({id, kind, call, slot, "", {}, onnx_.values[value].name});
    places_.push_back(place);
    return id;
  }

  // -- IR
  // -------------------------------------------------------------------------

  int copy_of(int value) {
    ir_.values.push_back(ir_.values[value]);
    ir_.values.back().producer = kNone;
    return static_cast<int>(ir_.values.size()) - 1;
  }

  // A single number has no dimensions, however many of size 1 are stored.
  int number_of(double number) {
    ir_.values.push_back(
        {"", true, false, std::vector<std::int64_t>{}, kNone, number});
    return static_cast<int>(ir_.values.size()) - 1;
  }

  int mark(int site, int value) {
    const int marked = copy_of(value);
    add_marker(site, value, marked);
    return marked;
  }

  void add_marker(int site, int from, int to) {
    add_ir_node(std::string(kMarkerKind), {{{from}, {}, ""}, {{}, site, ""}},
                {to});
  }

  void add_node(const std::string& kind, std::vector<IrArg> args,
                const std::vector<int>& outputs) {
    add_ir_node("aten::" + kind, std::move(args), outputs);
  }

  void add_ir_node(std::string kind, std::vector<IrArg> args,
                   const std::vector<int>& outputs) {
    IrNode node;
    node.kind = std::move(kind);
    node.args = std::move(args);
    for (const int value : outputs) {
      if (value == kNone) continue;
      ir_.values[value].producer = static_cast<int>(ir_.nodes.size());
      node.outputs.push_back(value);
    }
    ir_.nodes.push_back(std::move(node));
  }

  // In the order in which PyTorch's op of that kind has them, as far as the
  // counting of MACs and the like depends on it. `values`: what is read at the
  // node's inputs.
  std::vector<IrArg> arguments_of(const OnnxNode& node,
                                  const std::vector<int>& values) {
    if (is_recurrent(node.op_type)) return recurrent_arguments(node, values);
    std::vector<IrArg> args;
    if (node.op_type == "Einsum") {
      args.push_back({{}, {}, text(node, "equation")});
      args.push_back({values, {}, ""});
    } else {
      for (const int value : values) args.push_back(argument(value));
    }
    const bool multiplies = node.op_type == "Mul" && args.size() == 2;
    if (multiplies && ir_.values[values[0]].number) std::swap(args[0], args[1]);
    if (node.op_type == "Gemm" && number(node, "transA") != 0) {
      const int transposed = copy_of(values[0]);
      auto& shape = ir_.values[transposed].shape;
      if (shape) std::ranges::reverse(*shape);
      add_node("t", {args[0]}, {transposed});
      args[0] = argument(transposed);
    }
    if (!node.captured.empty()) args.push_back({node.captured, {}, ""});
    return args;
  }

  // lstm(input, hx[], params[], has_biases, num_layers, dropout, train,
  // bidirectional, batch_first), with the weights of all directions as one
  // matrix.
  std::vector<IrArg> recurrent_arguments(const OnnxNode& node,
                                         const std::vector<int>& values) {
    IrArg states;
    IrArg params;
    for (int i = 1; i < static_cast<int>(values.size()); ++i) {
      if (!is_floating(node.inputs[i])) continue;
      const bool is_param = i <= 3;
      (is_param ? params : states).tensors.push_back(values[i]);
      auto& shape = ir_.values[values[i]].shape;
      if (is_param && shape && shape->size() == 3) {
        shape = {{(*shape)[0] * (*shape)[1], (*shape)[2]}};
      } else if (is_param && shape) {
        shape = {{num_elements(*shape)}};
      }
    }
    const auto flag = [](std::int64_t value) { return IrArg{{}, value, ""}; };
    return {argument(values[0]),
            states,
            params,
            flag(1),
            flag(1),
            flag(0),
            flag(0),
            flag(0),
            flag(number(node, "layout"))};
  }

  [[nodiscard]] static IrArg argument(int value) {
    return value == kNone ? IrArg{} : IrArg{{value}, {}, ""};
  }

  [[nodiscard]] static std::int64_t number(const OnnxNode& node,
                                           const std::string& attribute) {
    const auto found = node.numbers.find(attribute);
    return found == node.numbers.end() ? 0 : found->second;
  }

  [[nodiscard]] static std::string text(const OnnxNode& node,
                                        const std::string& attribute,
                                        const std::string& otherwise = "") {
    const auto found = node.texts.find(attribute);
    return found == node.texts.end() ? otherwise : found->second;
  }

  // Op types that the table of ops does not have; axes that depend on
  // attributes.
  void name_ops(OpGraph& graph) const {
    for (Op& op : graph.ops) {
      if (op.call == kNone) continue;
      if (op.onnx_type.empty() && op.mask_slot == kNone) {
        op.onnx_type = types_[op.call];
      }
      if (op.kind != "linear") continue;
      for (Param& param : op.params) {
        const OnnxNode& node = onnx_.nodes[places_[param.site].node];
        const bool by_rows = number(node, "transB") != 0;
        if (param.name == "weight") param.channel_axis = by_rows ? 0 : 1;
      }
    }
  }

  const OnnxGraph& onnx_;
  FlatIr ir_;
  std::vector<Call> calls_;
  std::vector<std::string> types_;  // ONNX types, by call
  std::vector<Site> sites_;
  std::vector<OnnxPlace> places_;  // by site
  int slots_ = 0;                  // inputs of the last call marked so far
  std::map<int, Linear> linear_;   // by the Add
  std::set<int> matmul_with_bias_;
};

}  // namespace

OnnxReading read_onnx_graph(const OnnxGraph& graph) {
  return Reader(graph).run();
}

}  // namespace aimetpp::graph
