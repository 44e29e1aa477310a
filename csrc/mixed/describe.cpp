// SPDX-License-Identifier: BSD-3-Clause
#include "mixed/describe.h"

#include "core/text.h"

namespace aimetpp::mixed {

using graph::kNone;

std::string describe_request(const std::vector<Request>& requests,
                             int request) {
  const Request& asked = requests[request];
  return concat("request ", request + 1, " (", asked.subject,
                asked.source.empty() ? "" : ", ", asked.source, ")");
}

std::vector<int> numbers_from_one(std::vector<int> requests) {
  for (int& request : requests) ++request;
  return requests;
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

std::string name_of_quantizer(const graph::OpGraph& graph,
                              const config::Placement& placement,
                              int quantizer) {
  return graph.site_name(placement.quantizers[quantizer].sites.front());
}

}  // namespace aimetpp::mixed
