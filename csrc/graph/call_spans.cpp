// SPDX-License-Identifier: BSD-3-Clause
#include "graph/call_spans.h"

#include <algorithm>

#include "core/error.h"

namespace aimetpp::graph {
namespace {

void check_sites(const std::vector<Call>& calls,
                 const std::vector<Site>& sites) {
  for (std::size_t i = 0; i < sites.size(); ++i) {
    if (sites[i].id != static_cast<int>(i)) {
      raise_value_error("read_jit_graph: the id of a site must be its index, ",
                        i, ", got ", sites[i].id);
    }
    if (sites[i].call < 0 || sites[i].call >= static_cast<int>(calls.size())) {
      raise_value_error("read_jit_graph: the call of site ", i,
                        " must be an index of the ", calls.size(),
                        " calls, got ", sites[i].call);
    }
  }
}

void check_marker(const IrNode& node, const std::vector<Site>& sites) {
  if (node.args.size() != 2 || node.args[0].tensors.size() != 1 ||
      node.outputs.size() != 1 || !node.args[1].number) {
    raise_runtime_error(
        "read_jit_graph: a marker must have one tensor and a constant site id",
        at_source(node.source));
  }
  const std::int64_t id = *node.args[1].number;
  if (id < 0 || id >= static_cast<std::int64_t>(sites.size())) {
    raise_value_error("read_jit_graph: a marker's site id must be below ",
                      sites.size(), ", the number of sites, got ", id,
                      at_source(node.source));
  }
}

class SpanFinder {
 public:
  SpanFinder(const FlatIr& ir, const std::vector<Call>& calls,
             const std::vector<Site>& sites)
      : ir_(ir), calls_(calls), sites_(sites) {
    spans_.resize(calls.size());
    starts_with_output_.resize(calls.size(), false);
    has_output_.resize(calls.size(), false);
  }

  std::vector<CallSpan> run() {
    span_markers();
    std::vector<int> order;  // calls that left a trace, as they ran
    for (int call = 0; call < static_cast<int>(spans_.size()); ++call) {
      if (spans_[call].first != kNone) order.push_back(call);
    }
    std::ranges::sort(order, {}, [&](int call) { return spans_[call].first; });
    for (std::size_t i = 0; i < order.size(); ++i) {
      CallSpan& span = spans_[order[i]];
      const int before = i == 0 ? kNone : spans_[order[i - 1]].last;
      const int after = i + 1 == order.size()
                            ? static_cast<int>(ir_.nodes.size())
                            : spans_[order[i + 1]].first;
      if (span.first <= before) raise_overlap(order[i - 1], order[i]);
      if (starts_with_output_[order[i]]) extend_backward(span, before);
      if (!has_output_[order[i]]) extend_forward(span, after);
    }
    return std::move(spans_);
  }

 private:
  void span_markers() {
    for (int n = 0; n < static_cast<int>(ir_.nodes.size()); ++n) {
      if (!ir_.nodes[n].is_marker()) continue;
      check_marker(ir_.nodes[n], sites_);
      const Site& site = sites_[marked_site(ir_.nodes[n])];
      CallSpan& span = spans_[site.call];
      if (span.first == kNone) {
        span.first = n;
        starts_with_output_[site.call] = site.kind == SiteKind::output;
      }
      span.last = n;
      if (site.kind == SiteKind::output) has_output_[site.call] = true;
    }
  }

  // To the first of the nodes, after `before`, that the output depends on.
  void extend_backward(CallSpan& span, int before) {
    std::vector<int> wanted = ir_.nodes[span.first].args[0].tensors;
    for (std::size_t i = 0; i < wanted.size(); ++i) {
      const int node = ir_.values[wanted[i]].producer;
      if (node == kNone || node <= before) continue;
      span.first = std::min(span.first, node);
      const std::vector<int> reads = read_values(ir_.nodes[node]);
      for (const int value : reads) {
        if (std::ranges::find(wanted, value) == wanted.end()) {
          wanted.push_back(value);
        }
      }
    }
  }

  // To the last node before `after` that reads a floating tensor made inside.
  // A single number does not count: `x / x.norm()` is two calls.
  void extend_forward(CallSpan& span, int after) {
    const auto is_inner = [&](int value) {
      const IrValue& v = ir_.values[value];
      return v.is_floating && (!v.shape || !v.shape->empty()) &&
             v.producer >= span.first && v.producer <= span.last;
    };
    for (int n = span.last + 1; n < after; ++n) {
      const std::vector<int> reads = read_values(ir_.nodes[n]);
      if (std::ranges::any_of(reads, is_inner)) span.last = n;
    }
  }

  [[noreturn]] void raise_overlap(int first, int second) const {
    raise_runtime_error(
        "read_jit_graph: one call must end before the next one starts; ",
        calls_[second].name(), at_source(calls_[second].source),
        " starts inside ", calls_[first].name(),
        at_source(calls_[first].source),
        ". A module without children must not call another module");
  }

  const FlatIr& ir_;
  const std::vector<Call>& calls_;
  const std::vector<Site>& sites_;
  std::vector<CallSpan> spans_;
  std::vector<bool> starts_with_output_;  // by call
  std::vector<bool> has_output_;          // by call
};

}  // namespace

std::vector<int> calls_by_node(const std::vector<CallSpan>& spans,
                               std::size_t num_nodes) {
  std::vector<int> calls(num_nodes, kNone);
  for (int call = 0; call < static_cast<int>(spans.size()); ++call) {
    if (spans[call].first == kNone) continue;
    std::fill(calls.begin() + spans[call].first,
              calls.begin() + spans[call].last + 1, call);
  }
  return calls;
}

int marked_site(const IrNode& marker) {
  return static_cast<int>(*marker.args[1].number);
}

std::vector<CallSpan> find_call_spans(const FlatIr& ir,
                                      const std::vector<Call>& calls,
                                      const std::vector<Site>& sites) {
  check_sites(calls, sites);
  return SpanFinder(ir, calls, sites).run();
}

}  // namespace aimetpp::graph
