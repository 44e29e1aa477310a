// SPDX-License-Identifier: BSD-3-Clause
#include "graph/in_place_writes.h"

#include <string>
#include <utility>
#include <vector>

#include "graph/call_kind.h"
#include "graph/op_traits.h"

namespace aimetpp::graph {

void InPlaceWrites::write_through(int n, int written) {
  const int object = aliases_.object_of(read_values(ir_.nodes[n]).front());
  const int base = aliases_.base_of(object);
  const std::vector<int> views = aliases_.read_views(base, object, n);
  const int old = draft_.tensor_at(base);
  rename(object, written);
  if (object != base) {
    if (views.empty() && !aliases_.is_read_behind(base, n)) return;
    rename(base, merge(n, base, old, written));
  }
  for (const int view : views) rename(view, view_again(view));
}

void InPlaceWrites::rename(int object, int tensor) {
  for (const int name : aliases_.names_of(object)) {
    draft_.set_tensor(name, tensor);
  }
}

int InPlaceWrites::merge(int n, int base, int old, int written) {
  const std::string kind = "slice_scatter";
  const OpTraits& traits = op_traits(kind);
  // Into a constant (a buffer of zeros): what is written has all the values.
  const bool into_constant =
      draft_.graph().tensors[old].origin == Origin::constant;
  Op op = draft_.make_bare_op(
      {kind, traits.onnx_type,
       into_constant ? OpRole::grid_preserving : traits.role},
      ir_.nodes[n].source);
  if (!into_constant) draft_.add_input(op, old, kNone);
  draft_.add_input(op, written, kNone);
  const int merged = draft_.add_output(op, base, kNone);
  draft_.add_op(std::move(op));
  return merged;
}

int InPlaceWrites::view_again(int view) {
  const IrNode& node = ir_.nodes[ir_.values[view].producer];
  Op op = draft_.make_bare_op(kind_of_node(ir_, node), node.source);
  draft_.add_input(op, draft_.tensor_at(aliases_.viewed_by(view)), kNone);
  const int tensor = draft_.add_output(op, view, kNone);
  draft_.add_op(std::move(op));
  return tensor;
}

}  // namespace aimetpp::graph
