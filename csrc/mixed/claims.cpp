// SPDX-License-Identifier: BSD-3-Clause
#include "mixed/claims.h"

#include <algorithm>
#include <iterator>
#include <optional>
#include <utility>

#include "core/error.h"
#include "core/text.h"
#include "mixed/describe.h"

namespace aimetpp::mixed {
namespace {

using graph::kNone;

bool is_site(int site) { return site != kNone; }

// What later requests said of one input, output or parameter.
struct Settled {
  int request = kNone;  // kNone: nothing
  int claim = kNone;    // index in Claims::standing
  Precision precision = Precision::fp32();
  bool finds_quantizer = false;
};

// All inputs and outputs of an op, where one request gave them one precision.
struct SettledLeaf {
  int request = kNone;  // kNone: settled apart, or not all yet
  Precision precision = Precision::fp32();
  bool finds_quantizer = false;
};

// Numbers for the inputs, outputs and parameters of all ops, and for the names
// of parameters.
class AspectIndex {
 public:
  explicit AspectIndex(const graph::OpGraph& graph) {
    for (const graph::Op& op : graph.ops) {
      first_input_.push_back(num_activations_);
      first_output_.push_back(num_activations_ +
                              static_cast<int>(op.inputs.size()));
      num_activations_ += static_cast<int>(op.inputs.size());
      num_activations_ += static_cast<int>(op.outputs.size());
      first_param_.push_back(static_cast<int>(param_names_.size()));
      for (const graph::Param& param : op.params) {
        const int name = static_cast<int>(names_.size());
        param_names_.push_back(
            names_.try_emplace(param.name, name).first->second);
      }
    }
    first_param_.push_back(static_cast<int>(param_names_.size()));
  }

  [[nodiscard]] int size() const {
    return num_activations_ + static_cast<int>(param_names_.size());
  }
  [[nodiscard]] int of(int op, Aspect aspect, int slot) const {
    if (aspect == Aspect::input) return first_input_[op] + slot;
    if (aspect == Aspect::output) return first_output_[op] + slot;
    return num_activations_ + first_param_[op] + slot;
  }
  [[nodiscard]] int num_params(int op) const {
    return first_param_[op + 1] - first_param_[op];
  }
  [[nodiscard]] int name_of_param(int op, int slot) const {
    return param_names_[first_param_[op] + slot];
  }
  [[nodiscard]] int num_names() const {
    return static_cast<int>(names_.size());
  }
  [[nodiscard]] int find_name(const std::string& name) const {
    const auto found = names_.find(name);
    return found == names_.end() ? kNone : found->second;
  }

 private:
  int num_activations_ = 0;
  std::vector<int> first_input_, first_output_, first_param_;  // by op
  std::vector<int> param_names_;  // of all ops, one after another
  std::map<std::string, int> names_;
};

// Requests from the last to the first: what a later one has spoken of is
// settled, so that any number of requests leaves one claim per aspect.
class Expander {
 public:
  Expander(const graph::OpGraph& graph, const config::Placement& placement,
           const std::vector<Request>& requests)
      : graph_(graph),
        placement_(placement),
        requests_(requests),
        aspects_(graph),
        settled_(aspects_.size()),
        settled_leaves_(graph.ops.size()),
        noted_by_(requests.size(), kNone),
        asked_params_(aspects_.num_names()) {}

  Claims run() {
    const int count = static_cast<int>(requests_.size());
    for (int index = 0; index < count; ++index) check_ops(index);
    claims_.finds_quantizer.resize(count);
    claims_.replaced.resize(count);
    for (request_ = count - 1; request_ >= 0; --request_) {
      finds_quantizer_.assign(current().activations.size(), false);
      switch (current().target) {
        case RequestTarget::model_input:
          expand_model_inputs();
          break;
        case RequestTarget::model_output:
          expand_model_outputs();
          break;
        default:
          expand_leaves();
      }
      std::ranges::sort(claims_.replaced[request_].later);
      claims_.finds_quantizer[request_] = finds_quantizer_;
    }
    std::ranges::stable_sort(claims_.standing, {}, &Claim::request);
    return std::move(claims_);
  }

 private:
  [[nodiscard]] const Request& current() const { return requests_[request_]; }

  [[nodiscard]] QuantizerRoute find_route(int op, Aspect aspect,
                                          int slot) const {
    if (aspect == Aspect::input) {
      return route_of_input(graph_, placement_, op, slot);
    }
    if (aspect == Aspect::output) {
      return route_of_output(graph_, placement_, op, slot);
    }
    QuantizerRoute route;
    const int quantizer =
        placement_.quantizer_at(graph_.ops[op].params[slot].site);
    if (quantizer != kNone) route.quantizers = {quantizer};
    return route;
  }

  void add(int entry, int op, Aspect aspect, int slot, Precision precision) {
    Settled& settled = settled_[aspects_.of(op, aspect, slot)];
    if (settled.request == kNone || settled.request == request_) {
      settle(entry, op, aspect, slot, precision, settled);
    } else if (settled.precision != precision) {
      note_replaced({request_, entry, op, aspect, slot, precision},
                    settled.request);
    }
    if (settled.finds_quantizer) finds_quantizer_[entry] = true;
  }

  // One request may speak of a tensor twice: a model that returns it twice.
  void settle(int entry, int op, Aspect aspect, int slot, Precision precision,
              Settled& settled) {
    int route = static_cast<int>(claims_.routes.size());
    if (settled.request == kNone) {
      claims_.routes.push_back(find_route(op, aspect, slot));
    } else {
      route = claims_.standing[settled.claim].route;
    }
    const QuantizerRoute& found = claims_.routes[route];
    settled.request = request_;
    settled.claim = static_cast<int>(claims_.standing.size());
    settled.precision = precision;
    // An activation whose precision some quantizer decides, or that is fused.
    settled.finds_quantizer =
        aspect != Aspect::param && (!found.quantizers.empty() || found.fused);
    claims_.standing.push_back(
        {request_, entry, op, aspect, slot, precision, route});
  }

  void count_replaced(Replacement& noted, int op, int later) {
    if (noted_by_[later] != request_) noted.later.push_back(later);
    noted_by_[later] = request_;
    if (noted.last_op != op) ++noted.num_ops;
    noted.last_op = op;
  }

  void note_replaced(const Claim& claim, int later) {
    Replacement& noted = claims_.replaced[request_];
    count_replaced(noted, claim.op, later);
    if (noted.num_ops > Replacement::kShownOps) return;
    noted.claims.push_back(claim);
    noted.by.push_back(later);
  }

  void check_length(std::size_t wanted, const std::string& whose,
                    const char* what) const {
    const std::size_t got = current().activations.size();
    if (got <= 1 || got == wanted) return;
    raise_value_error(describe_request(requests_, request_), ": ", whose,
                      " has ", counted(wanted, what),
                      ", so activation must be one precision or ", wanted,
                      " of them, got ", got);
  }

  void check_ops(int request) {
    const auto check = [&](int op) {
      if (op >= 0 && op < static_cast<int>(graph_.ops.size())) return;
      raise_value_error(describe_request(requests_, request),
                        ": op must be between 0 and ", graph_.ops.size() - 1,
                        ", got ", op);
    };
    const OpList& asked = requests_[request].ops;
    if (!asked.empty()) {  // ascending
      check(*asked.begin());
      check(*std::prev(asked.end()));
    }
    std::ranges::for_each(requests_[request].results, check);
    for (const std::vector<Port>& ports : requests_[request].ports) {
      for (const Port& port : ports) {
        check(port.op);
        const std::size_t count = graph_.ops[port.op].inputs.size();
        if (port.slot >= 0 && port.slot < static_cast<int>(count)) continue;
        raise_value_error(describe_request(requests_, request), ": ",
                          graph_.ops[port.op].name, " has ",
                          counted(count, "input"), ", got slot ", port.slot);
      }
    }
  }

  // A list for a layer that is several ops: it speaks of what enters and
  // leaves.
  void expand_ports() {
    const auto& activations = current().activations;
    check_length(current().ports.size(), current().subject, "input");
    for (std::size_t entry = 0; entry < activations.size(); ++entry) {
      if (!activations[entry]) continue;
      for (const Port& port : current().ports[entry]) {
        add(static_cast<int>(entry), port.op, Aspect::input, port.slot,
            *activations[entry]);
      }
    }
    if (!activations.front()) return;
    for (const int op : current().results) {
      const int count = static_cast<int>(graph_.ops[op].outputs.size());
      for (int slot = 0; slot < count; ++slot) {
        add(0, op, Aspect::output, slot, *activations.front());
      }
    }
  }

  void expand_leaves() {
    const auto& activations = current().activations;
    const bool is_list = activations.size() > 1;
    const bool is_uniform =
        activations.size() == 1 && activations.front().has_value();
    if (is_list && !current().ports.empty()) expand_ports();
    std::ranges::fill(asked_params_, std::nullopt);
    for (const auto& [name, precision] : current().params) {
      const int found = aspects_.find_name(name);
      if (found != kNone) asked_params_[found] = precision;
    }
    for (const int op : current().ops) {
      if (is_list && current().ports.empty()) expand_list(op);
      if (is_uniform) expand_uniformly(op, *activations.front());
      if (!current().params.empty()) expand_params(op);
    }
  }

  void expand_params(int op) {
    for (int slot = 0; slot < aspects_.num_params(op); ++slot) {
      const auto& asked = asked_params_[aspects_.name_of_param(op, slot)];
      if (asked) add(0, op, Aspect::param, slot, *asked);
    }
  }

  // One precision for all inputs and outputs. Where one later request settled
  // them alike, they need not be looked at one by one.
  void expand_uniformly(int index, Precision precision) {
    SettledLeaf& settled = settled_leaves_[index];
    if (settled.request != kNone) {
      if (settled.finds_quantizer) finds_quantizer_[0] = true;
      if (settled.precision == precision) return;
      Replacement& noted = claims_.replaced[request_];
      if (noted.num_ops >= Replacement::kShownOps) {
        count_replaced(noted, index, settled.request);
        return;
      }
    }
    const std::size_t first = claims_.standing.size();
    std::size_t num_aspects = 0;
    const graph::Op& op = graph_.ops[index];
    for (int slot = 0; slot < static_cast<int>(op.inputs.size()); ++slot) {
      if (op.input_sites[slot] == kNone) continue;
      add(0, index, Aspect::input, slot, precision);
      ++num_aspects;
    }
    for (int slot = 0; slot < static_cast<int>(op.outputs.size()); ++slot) {
      add(0, index, Aspect::output, slot, precision);
      ++num_aspects;
    }
    const std::size_t num_settled = claims_.standing.size() - first;
    if (num_aspects == 0 || num_settled != num_aspects) return;
    settled.precision = precision;
    settled.request = request_;
    for (std::size_t claim = first; claim < claims_.standing.size(); ++claim) {
      const QuantizerRoute& route = claims_.route_of(claims_.standing[claim]);
      if (!route.quantizers.empty() || route.fused) {
        settled.finds_quantizer = true;
      }
    }
  }

  // One precision for each input. A list speaks of the inputs that are sites; a
  // buffer or a constant that the reader found inside the call is none.
  void expand_list(int index) {
    const graph::Op& op = graph_.ops[index];
    const auto& activations = current().activations;
    const auto num_inputs = static_cast<std::size_t>(
        std::ranges::count_if(op.input_sites, is_site));
    check_length(num_inputs, op.name, "input");
    int entry = 0;
    for (int slot = 0; slot < static_cast<int>(op.inputs.size()); ++slot) {
      if (op.input_sites[slot] == kNone) continue;
      if (activations[entry]) {
        add(entry, index, Aspect::input, slot, *activations[entry]);
      }
      ++entry;
    }
    if (!activations.front()) return;
    for (int slot = 0; slot < static_cast<int>(op.outputs.size()); ++slot) {
      add(0, index, Aspect::output, slot, *activations.front());
    }
  }

  void expand_model_inputs() {
    const auto& activations = current().activations;
    const int count = static_cast<int>(graph_.model_inputs.size());
    check_length(count, "the model", "input");
    if (activations.empty()) return;
    for (int input = 0; input < count; ++input) {
      const int entry = activations.size() == 1 ? 0 : input;
      if (!activations[entry]) continue;
      for (const graph::Use& use :
           leaf_uses(graph_, graph_.model_inputs[input])) {
        add(entry, use.op, Aspect::input, use.slot, *activations[entry]);
      }
    }
  }

  void expand_model_outputs() {
    const auto& activations = current().activations;
    const int count = static_cast<int>(graph_.model_outputs.size());
    check_length(count, "the model", "output");
    if (activations.empty()) return;
    for (int output = 0; output < count; ++output) {
      const int entry = activations.size() == 1 ? 0 : output;
      if (!activations[entry]) continue;
      claim_producer(entry, graph_.model_outputs[output], *activations[entry]);
    }
  }

  // Of the leaf that made `tensor`, seen through ops that are in the IR only.
  void claim_producer(int entry, int tensor, Precision precision) {
    tensor = tensor_of_leaf(graph_, tensor);
    const int producer = graph_.tensors[tensor].producer;
    if (producer == kNone) {  // the model gives its input back
      for (const graph::Use& use : leaf_uses(graph_, tensor)) {
        add(entry, use.op, Aspect::input, use.slot, precision);
      }
      return;
    }
    const std::vector<int>& outputs = graph_.ops[producer].outputs;
    const auto found = std::find(outputs.begin(), outputs.end(), tensor);
    add(entry, producer, Aspect::output,
        static_cast<int>(found - outputs.begin()), precision);
  }

  const graph::OpGraph& graph_;
  const config::Placement& placement_;
  const std::vector<Request>& requests_;
  const AspectIndex aspects_;
  std::vector<Settled> settled_;             // by aspect
  std::vector<SettledLeaf> settled_leaves_;  // by op
  std::vector<int> noted_by_;  // by later request: the last that noted it
  // Of the request at hand: precisions by name of a parameter, and whether
  // some quantizer was found by entry of its activations.
  int request_ = 0;
  std::vector<std::optional<Precision>> asked_params_;
  std::vector<bool> finds_quantizer_;
  Claims claims_;
};

}  // namespace

Claims claims_of_requests(const graph::OpGraph& graph,
                          const config::Placement& placement,
                          const std::vector<Request>& requests) {
  return Expander(graph, placement, requests).run();
}

}  // namespace aimetpp::mixed
