// SPDX-License-Identifier: BSD-3-Clause
#include "mixed/claims.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "core/error.h"
#include "core/text.h"

namespace aimetpp::mixed {
namespace {

using graph::kNone;

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
  }

  Claims run() {
    const int count = static_cast<int>(requests_.size());
    for (int index = 0; index < count; ++index) check_ops(index);
    claims_.finds_quantizer.resize(count);
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
    }
    std::stable_sort(claims_.standing.begin(), claims_.standing.end(),
                     [](const Claim& lhs, const Claim& rhs) {
                       return lhs.request < rhs.request;
                     });
    for (auto& [requests, replacement] : replaced_) {
      claims_.replaced.push_back(std::move(replacement));
    }
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
    const QuantizerRoute& found = claims_.routes[route];
    if (aspect != Aspect::param && (!found.quantizers.empty() || found.fused)) {
      claims_.finds_quantizer[request_][entry] = true;
    }
    const Claim claim{request_, entry, op, aspect, slot, precision, route};
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

  void note_replaced(const Claim& claim, int later) {
    Replacement& noted = replaced_[{claim.request, later}];
    noted.request = claim.request;
    noted.later = later;
    if (noted.last_op != claim.op) ++noted.num_ops;
    noted.last_op = claim.op;
    if (noted.num_ops <= Replacement::kShownOps) noted.claims.push_back(claim);
  }

  void check_length(std::size_t wanted, const std::string& what) const {
    const std::size_t got = current().activations.size();
    if (got <= 1 || got == wanted) return;
    raise_value_error(describe_request(requests_, request_), ": ", what,
                      ", so activation must be one precision or ", wanted,
                      " of them, got ", got);
  }

  void check_ops(int request) const {
    for (const int op : requests_[request].ops) {
      if (op >= 0 && op < static_cast<int>(graph_.ops.size())) continue;
      raise_value_error(describe_request(requests_, request),
                        ": op must be between 0 and ", graph_.ops.size() - 1,
                        ", got ", op);
    }
  }

  void expand_leaves() {
    std::vector<int> ops = current().ops;
    std::sort(ops.begin(), ops.end());
    ops.erase(std::unique(ops.begin(), ops.end()), ops.end());
    for (const int op : ops) expand_leaf(op);
  }

  void expand_leaf(int index) {
    const graph::Op& op = graph_.ops[index];
    const auto& activations = current().activations;
    // A list speaks of the inputs that are sites; a buffer or a constant that
    // the reader found inside the call is none.
    const auto num_inputs = static_cast<std::size_t>(
        std::count_if(op.input_sites.begin(), op.input_sites.end(),
                      [](int site) { return site != kNone; }));
    check_length(num_inputs, concat(op.name, " has ", num_inputs, " inputs"));
    if (!activations.empty()) {
      int marked = 0;
      for (int slot = 0; slot < static_cast<int>(op.inputs.size()); ++slot) {
        if (op.input_sites[slot] == kNone) continue;
        const int entry = activations.size() == 1 ? 0 : marked;
        ++marked;
        if (!activations[entry]) continue;
        add(entry, index, Aspect::input, slot, *activations[entry]);
      }
      for (int slot = 0; slot < static_cast<int>(op.outputs.size()); ++slot) {
        if (!activations.front()) continue;
        add(0, index, Aspect::output, slot, *activations.front());
      }
    }
    for (const auto& [name, precision] : current().params) {
      for (int slot = 0; slot < static_cast<int>(op.params.size()); ++slot) {
        if (op.params[slot].name != name) continue;
        add(0, index, Aspect::param, slot, precision);
      }
    }
  }

  void expand_model_inputs() {
    const auto& activations = current().activations;
    const int count = static_cast<int>(graph_.model_inputs.size());
    check_length(count, concat("the model has ", count, " inputs"));
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
    check_length(count, concat("the model has ", count, " outputs"));
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
  std::map<std::pair<int, int>, Replacement> replaced_;
  Claims claims_;
};

std::string last_rule(const config::Placement& placement, int site) {
  if (site == kNone || placement.rules[site].empty()) return "";
  const config::RuleEffect& last = placement.rules[site].back();
  return concat(" (", last.section, ": ", last.effect, ")");
}

// Empty where at least one covered leaf has a quantizer for the parameter.
std::string why_param_is_ineffective(const graph::OpGraph& graph,
                                     const config::Placement& placement,
                                     const Request& request,
                                     const std::string& name) {
  std::set<std::string> known;
  std::string unquantized;
  for (const int op : request.ops) {
    for (const graph::Param& param : graph.ops[op].params) {
      known.insert(param.name);
      if (param.name != name) continue;
      if (placement.quantizer_at(param.site) != kNone) return "";
      if (unquantized.empty()) {
        unquantized = concat("parameter \"", name, "\" has no quantizer",
                             last_rule(placement, param.site));
      }
    }
  }
  if (!unquantized.empty()) return unquantized;
  return concat("no parameter \"", name, "\"; ",
                known.empty() ? "there are none" : "there is " + join(known));
}

}  // namespace

Claims claims_of_requests(const graph::OpGraph& graph,
                          const config::Placement& placement,
                          const std::vector<Request>& requests) {
  return Expander(graph, placement, requests).run();
}

std::vector<ReportLine> find_ineffective(const graph::OpGraph& graph,
                                         const config::Placement& placement,
                                         const std::vector<Request>& requests,
                                         const Claims& claims) {
  std::vector<ReportLine> lines;
  for (int index = 0; index < static_cast<int>(requests.size()); ++index) {
    const Request& request = requests[index];
    const bool is_model_request =
        request.target == RequestTarget::model_input ||
        request.target == RequestTarget::model_output;
    if (!is_model_request && request.ops.empty()) {
      lines.push_back({index, request.subject,
                       "matches no layer that the traced forward called"});
      continue;
    }
    for (int entry = 0; entry < static_cast<int>(request.activations.size());
         ++entry) {
      if (!request.activations[entry] || claims.finds_quantizer[index][entry]) {
        continue;
      }
      const std::string where = request.activations.size() > 1
                                    ? concat("entry ", entry, " of activation")
                                    : std::string("activation");
      lines.push_back({index, request.subject,
                       concat(where, " (", request.activations[entry]->name(),
                              ") finds no quantizer")});
    }
    for (const auto& [name, precision] : request.params) {
      const std::string why =
          why_param_is_ineffective(graph, placement, request, name);
      if (!why.empty()) lines.push_back({index, request.subject, why});
    }
  }
  return lines;
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
