// SPDX-License-Identifier: BSD-3-Clause
// One call of the manual mixed precision API, as the resolver takes it.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/types.h"
#include "graph/op_graph.h"

namespace aimetpp::mixed {

enum class RequestTarget : std::uint8_t {
  leaf,         // set_precision(module) of a leaf, or of a functional op's site
  container,    // set_precision(module) of a module with leaves inside
  type,         // set_precision(module type)
  model_input,  // set_model_input_precision
  model_output,  // set_model_output_precision
};

// An input of an op.
struct Port {
  int op = graph::kNone;
  int slot = 0;
};

// Op indices, ascending, each once. Copies share them: a thousand requests on
// one type or glob hold one list.
class OpList {
 public:
  OpList() : OpList(std::vector<int>()) {}
  OpList(std::initializer_list<int> ops) : OpList(std::vector<int>(ops)) {}
  explicit OpList(std::vector<int> ops) {
    std::ranges::sort(ops);
    const auto rest = std::ranges::unique(ops);
    ops.erase(rest.begin(), rest.end());
    ops_ = std::make_shared<const std::vector<int>>(std::move(ops));
  }

  [[nodiscard]] auto begin() const { return ops_->begin(); }
  [[nodiscard]] auto end() const { return ops_->end(); }
  [[nodiscard]] bool empty() const { return ops_->empty(); }
  [[nodiscard]] std::size_t size() const { return ops_->size(); }

 private:
  std::shared_ptr<const std::vector<int>> ops_;
};

// Already expanded by the front to the calls (leaves) it covers.
struct Request {
  RequestTarget target = RequestTarget::leaf;
  std::string subject;  // as asked: "conv1", "type Conv2d", "model input"
  std::string source;   // "file.py:line" of the user's call
  OpList ops;           // the leaves covered; empty: matches none
  // Per input site of the leaf (one entry: all inputs), or per model
  // input/output; an empty optional is the user's None. Empty vector:
  // activations stay.
  std::vector<std::optional<Precision>> activations;
  std::map<std::string, Precision> params;  // by parameter name
  // Where a layer is several ops (an attention): for each entry of
  // `activations` the inputs that it speaks of, and the ops whose outputs are
  // the layer's. Empty: the entries are the inputs of each op.
  std::vector<std::vector<Port>> ports{};
  std::vector<int> results{};
};

}  // namespace aimetpp::mixed
