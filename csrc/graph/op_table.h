// SPDX-License-Identifier: BSD-3-Clause
// The rows behind op_traits(). Internal to graph/: include op_traits.h instead.
#pragma once

#include <span>
#include <string_view>

namespace aimetpp::graph {

// One ONNX type ("" where ONNX has none) and the kinds that map to it,
// separated by spaces.
struct OpRow {
  std::string_view onnx_type;
  std::string_view kinds;
};

// Ops that make new values.
std::span<const OpRow> compute_rows();
// Compute ops that only merge several tensors into one, which therefore must
// share one encoding.
std::span<const OpRow> merging_rows();
// Ops that move, repeat or pick values. What they add besides is a value that
// is on every grid (the zeros of a padding or of a triangle), or one that
// stands for "not there" (masked_fill with -inf before a softmax), which must
// not widen the range of a quantizer.
std::span<const OpRow> grid_preserving_rows();
// Ops that yield no values: sizes, predicates, indices, attribute access, and
// creation functions, whose results are constants.
std::span<const OpRow> metadata_rows();

// One kind and the other names it goes by, separated by spaces.
struct SpellingRow {
  std::string_view kind;
  std::string_view names;
};
std::span<const SpellingRow> spelling_rows();

}  // namespace aimetpp::graph
