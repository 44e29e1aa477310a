// SPDX-License-Identifier: BSD-3-Clause
// How values cross the border between C++ and Python: precisions and candidates
// as names, enums as the words that the Python side uses.
#pragma once

#include <pybind11/pybind11.h>

#include <string>
#include <utility>

#include "core/error.h"
#include "core/types.h"
#include "graph/op_graph.h"
#include "mixed/greedy_search.h"
#include "mixed/resolver.h"
#include "quantizer/encoding.h"
#include "quantizer/statistics.h"

// A precision is a string in Python, a candidate a pair of them. Parsing throws
// the library's own error, so that a wrong name is a ValueError with its
// reason.
namespace pybind11::detail {

template <>
struct type_caster<aimetpp::Precision> {
  static constexpr auto name = const_name("str");
  template <typename T>
  using cast_op_type = movable_cast_op_type<T>;
  operator aimetpp::Precision*() { return &value; }
  operator aimetpp::Precision&() { return value; }
  operator aimetpp::Precision&&() && { return std::move(value); }

  bool load(handle source, bool) {
    if (!isinstance<str>(source)) return false;
    value = aimetpp::Precision::parse(source.cast<std::string>());
    return true;
  }
  static handle cast(const aimetpp::Precision& precision, return_value_policy,
                     handle) {
    return str(precision.name()).release();
  }

  aimetpp::Precision value = aimetpp::Precision::fp32();
};

template <>
struct type_caster<aimetpp::Candidate> {
  static constexpr auto name = const_name("tuple[str, str]");
  template <typename T>
  using cast_op_type = movable_cast_op_type<T>;
  operator aimetpp::Candidate*() { return &value; }
  operator aimetpp::Candidate&() { return value; }
  operator aimetpp::Candidate&&() && { return std::move(value); }

  bool load(handle source, bool) {
    if (!isinstance<tuple>(source) || len(source) != 2) return false;
    const auto names = source.cast<std::pair<std::string, std::string>>();
    value = {aimetpp::Precision::parse(names.first),
             aimetpp::Precision::parse(names.second)};
    return true;
  }
  static handle cast(const aimetpp::Candidate& candidate, return_value_policy,
                     handle) {
    return pybind11::make_tuple(candidate.activation.name(),
                                candidate.param.name())
        .release();
  }

  aimetpp::Candidate value{aimetpp::Precision::fp32(),
                           aimetpp::Precision::fp32()};
};

}  // namespace pybind11::detail

namespace aimetpp::python {

inline graph::SiteKind site_kind_of(const std::string& name) {
  for (const auto kind : {graph::SiteKind::input, graph::SiteKind::output,
                          graph::SiteKind::param}) {
    if (name == graph::to_string(kind)) return kind;
  }
  raise_value_error(
      "site kind must be \"input\", \"output\" or \"param\", got \"", name,
      "\"");
}

inline quantizer::Symmetry symmetry_of(const std::string& name) {
  if (name == "asymmetric") return quantizer::Symmetry::asymmetric;
  if (name == "symmetric") return quantizer::Symmetry::symmetric;
  if (name == "strict_symmetric") return quantizer::Symmetry::strict_symmetric;
  if (name == "unsigned_symmetric") {
    return quantizer::Symmetry::unsigned_symmetric;
  }
  raise_value_error(
      "symmetry must be \"asymmetric\", \"symmetric\", \"strict_symmetric\" or "
      "\"unsigned_symmetric\", got \"",
      name, "\"");
}

inline quantizer::Scheme scheme_of(const std::string& name) {
  if (name == "min_max") return quantizer::Scheme::min_max;
  if (name == "tf_enhanced") return quantizer::Scheme::tf_enhanced;
  if (name == "percentile") return quantizer::Scheme::percentile;
  if (name == "mse") return quantizer::Scheme::mse;
  raise_value_error(
      "quantization scheme must be \"min_max\", \"tf_enhanced\", "
      "\"percentile\" "
      "or \"mse\", got \"",
      name, "\"");
}

inline mixed::SearchAlgo search_algo_of(int value) {
  if (value < 1 || value > 3) {
    raise_value_error(
        "amp_search_algo must be BruteForce (1), Interpolation (2) or Binary "
        "(3), got ",
        value);
  }
  return static_cast<mixed::SearchAlgo>(value);
}

inline mixed::RequestTarget request_target_of(const std::string& name) {
  using mixed::RequestTarget;
  if (name == "leaf") return RequestTarget::leaf;
  if (name == "container") return RequestTarget::container;
  if (name == "type") return RequestTarget::type;
  if (name == "model_input") return RequestTarget::model_input;
  if (name == "model_output") return RequestTarget::model_output;
  raise_value_error(
      "request target must be \"leaf\", \"container\", \"type\", "
      "\"model_input\" or \"model_output\", got \"",
      name, "\"");
}

}  // namespace aimetpp::python
