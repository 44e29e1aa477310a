// SPDX-License-Identifier: BSD-3-Clause
#include "mixed/claims.h"

#include <algorithm>
#include <functional>
#include <optional>
#include <set>
#include <utility>

#include "core/error.h"
#include "core/text.h"

namespace aimetpp::mixed {
namespace {

using graph::kNone;

bool is_site(int site) { return site != kNone; }

// All inputs and outputs of an op, where one request gave them one precision.
struct SettledLeaf {
  std::optional<Precision> precision;  // empty: settled apart, or not all yet
  int request = kNone;
  bool finds_quantizer = false;
};

// Requests from the last to the first: what a later one has spoken of is
// settled, so that any number of requests leaves one claim per aspect.
class Expander {
 public:
  Expander(const graph::OpGraph& graph, const config::Placement& placement,
           const std::vector<Request>& requests)
      : graph_(graph), placement_(placement), requests_(requests) {
    first_aspect_.reserve(graph.ops.size());
    int count = 0;
    for (const graph::Op& op : graph.ops) {
      first_aspect_.push_back(count);
      count += static_cast<int>(op.inputs.size() + op.outputs.size() +
                                op.params.size());
    }
    route_of_aspect_.assign(count, kNone);
    settled_.assign(count, kNone);
    settled_leaves_.resize(graph.ops.size());
    noted_by_.assign(requests.size(), kNone);
    ascends_.assign(requests.size(), false);
  }

  Claims run() {
    const int count = static_cast<int>(requests_.size());
    for (int index = 0; index < count; ++index) check_ops(index);
    claims_.finds_quantizer.resize(count);
    claims_.replaced.resize(count);
    for (request_ = count - 1; request_ >= 0; --request_) {
      claims_.finds_quantizer[request_].assign(current().activations.size(),
                                               false);
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
    }
    std::stable_sort(claims_.standing.begin(), claims_.standing.end(),
                     [](const Claim& lhs, const Claim& rhs) {
                       return lhs.request < rhs.request;
                     });
    return std::move(claims_);
  }

 private:
  [[nodiscard]] const Request& current() const { return requests_[request_]; }

  [[nodiscard]] int aspect_index(int op, Aspect aspect, int slot) const {
    const graph::Op& owner = graph_.ops[op];
    int index = first_aspect_[op] + slot;
    if (aspect != Aspect::input) index += static_cast<int>(owner.inputs.size());
    if (aspect == Aspect::param) {
      index += static_cast<int>(owner.outputs.size());
    }
    return index;
  }

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
    const int index = aspect_index(op, aspect, slot);
    int& route = route_of_aspect_[index];
    if (route == kNone) {
      route = static_cast<int>(claims_.routes.size());
      claims_.routes.push_back(find_route(op, aspect, slot));
    }
    const Claim claim{request_, entry, op, aspect, slot, precision, route};
    if (finds_quantizer(claim)) {
      claims_.finds_quantizer[request_][entry] = true;
    }
    int& settled = settled_[index];
    if (settled != kNone && claims_.standing[settled].request != request_) {
      const Claim& later = claims_.standing[settled];
      if (later.precision != precision) note_replaced(claim, later.request);
      return;
    }
    // One request may speak of a tensor twice: a model that returns it twice.
    settled = static_cast<int>(claims_.standing.size());
    claims_.standing.push_back(claim);
  }

  // An activation whose precision some quantizer decides, or that is fused.
  [[nodiscard]] bool finds_quantizer(const Claim& claim) const {
    const QuantizerRoute& route = claims_.routes[claim.route];
    return claim.aspect != Aspect::param &&
           (!route.quantizers.empty() || route.fused);
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
    const std::vector<int>& asked = requests_[request].ops;
    // Many requests on one type or glob cover the same leaves.
    if (request > 0 && asked == requests_[request - 1].ops) {
      ascends_[request] = ascends_[request - 1];
    } else {
      ascends_[request] =
          std::ranges::is_sorted(asked, std::ranges::less_equal());
      std::ranges::for_each(asked, check);
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
    if (!current().ports.empty() && current().activations.size() > 1) {
      expand_ports();
    }
    const std::vector<int>& asked = current().ops;
    if (ascends_[request_]) {
      for (const int op : asked) expand_leaf(op);
      return;
    }
    for (const int op : std::set<int>(asked.begin(), asked.end())) {
      expand_leaf(op);
    }
  }

  void expand_leaf(int index) {
    const auto& activations = current().activations;
    const bool is_list = activations.size() > 1;
    if (is_list && current().ports.empty()) expand_list(index);
    if (activations.size() == 1 && activations.front()) {
      expand_uniformly(index, *activations.front());
    }
    const graph::Op& op = graph_.ops[index];
    for (const auto& [name, precision] : current().params) {
      for (int slot = 0; slot < static_cast<int>(op.params.size()); ++slot) {
        if (op.params[slot].name != name) continue;
        add(0, index, Aspect::param, slot, precision);
      }
    }
  }

  // One precision for all inputs and outputs. Where one later request settled
  // them alike, they need not be looked at one by one.
  void expand_uniformly(int index, Precision precision) {
    SettledLeaf& settled = settled_leaves_[index];
    if (settled.precision) {
      if (settled.finds_quantizer) claims_.finds_quantizer[request_][0] = true;
      if (*settled.precision == precision) return;
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
    if (claims_.standing.size() - first != num_aspects) return;
    settled.precision = precision;
    settled.request = request_;
    for (std::size_t claim = first; claim < claims_.standing.size(); ++claim) {
      if (finds_quantizer(claims_.standing[claim])) {
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
    int producer = graph_.tensors[tensor].producer;
    while (producer != kNone && graph_.ops[producer].call == kNone &&
           graph_.ops[producer].role == graph::OpRole::grid_preserving &&
           !graph_.ops[producer].inputs.empty()) {
      tensor = graph_.ops[producer].inputs.front();
      producer = graph_.tensors[tensor].producer;
    }
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
  int request_ = 0;
  std::vector<int> first_aspect_;     // by op
  std::vector<int> route_of_aspect_;  // index in Claims::routes
  std::vector<int> settled_;          // by aspect: index in Claims::standing
  std::vector<SettledLeaf> settled_leaves_;  // by op
  std::vector<bool> ascends_;  // by request: its ops do, each once
  std::vector<int> noted_by_;  // by later request: the last that noted it
  Claims claims_;
};

}  // namespace

Claims claims_of_requests(const graph::OpGraph& graph,
                          const config::Placement& placement,
                          const std::vector<Request>& requests) {
  return Expander(graph, placement, requests).run();
}

std::string describe_request(const std::vector<Request>& requests,
                             int request) {
  const Request& asked = requests[request];
  return concat("request ", request + 1, " (", asked.subject,
                asked.source.empty() ? "" : ", ", asked.source, ")");
}

std::string describe_aspect(const graph::OpGraph& graph, const Claim& claim) {
  const graph::Op& op = graph.ops[claim.op];
  switch (claim.aspect) {
    case Aspect::input:
      return concat(op.name, " input ", claim.slot);
    case Aspect::output:
      return op.outputs.size() == 1 ? op.name + " output"
                                    : concat(op.name, " output ", claim.slot);
    case Aspect::param:
      return op.name + "." + op.params[claim.slot].name;
  }
  return op.name;
}

std::string module_of_op(const graph::OpGraph& graph, int op) {
  const int call = graph.ops[op].call;
  return call == kNone ? "" : graph.calls[call].module;
}

std::string describe_quantizer(const graph::OpGraph& graph,
                               const config::Placement& placement,
                               int quantizer) {
  return join(placement.quantizers[quantizer].sites,
              [&](int site) { return graph.site_name(site); });
}

}  // namespace aimetpp::mixed
