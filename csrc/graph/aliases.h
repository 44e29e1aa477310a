// SPDX-License-Identifier: BSD-3-Clause
// Which values of a trace show the same memory. Internal to graph/.
#pragma once

#include <vector>

#include "graph/flat_ir.h"

namespace aimetpp::graph {

// An object is what one variable of the traced program holds: markers and
// in-place writes name it anew. Its index is that of its first name.
class Aliases {
 public:
  Aliases(const FlatIr& ir, const ValueFacts& facts);

  [[nodiscard]] int object_of(int value) const { return object_[value]; }
  // The values that name `object`.
  [[nodiscard]] const std::vector<int>& names_of(int object) const {
    return names_[object];
  }
  // The object that owns the memory that `object` shows; itself where it does.
  [[nodiscard]] int base_of(int object) const { return base_[object]; }
  // The object of which `object` is a view; kNone where it owns its memory.
  [[nodiscard]] int viewed_by(int object) const { return viewed_[object]; }
  // The objects, in the order in which they were made, that are views of
  // `base` made before node `n` and that it or a view of it is read behind `n`.
  // Those that are views of `written` only count: it is not among them.
  [[nodiscard]] std::vector<int> read_views(int base, int written, int n) const;
  [[nodiscard]] bool is_read_behind(int object, int n) const {
    return last_use_[object] > n;
  }

 private:
  const FlatIr& ir_;
  std::vector<int> object_;              // by value
  std::vector<std::vector<int>> names_;  // by object, and all below
  std::vector<int> base_;
  std::vector<int> viewed_;
  std::vector<std::vector<int>> views_;  // of a base
  std::vector<int> last_use_;            // node index
};

}  // namespace aimetpp::graph
