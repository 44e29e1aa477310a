// SPDX-License-Identifier: BSD-3-Clause
// Nested Python values taken apart into tensors and plain values. Private to
// python/.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/csrc/utils/pybind.h>

#include <optional>
#include <vector>

namespace aimetpp::python {

// A tensor or plain value (None, a number, a string, a dtype, ...), or tuples,
// lists and dicts of such.
struct ValueTree {
  std::vector<at::Tensor> tensors;  // depth first
  py::object plain;                 // the value with a mark for each tensor

  // nullopt for a value with anything else in it, and for tensors with more
  // than memory behind them.
  static std::optional<ValueTree> of(py::handle value);
  // The value again, in containers of its own.
  [[nodiscard]] py::object value() const;
};

// Whether two plain parts are the same to whatever reads them: 1 is not 1.0,
// and 0.0 not -0.0.
[[nodiscard]] bool same_plain(py::handle a, py::handle b);

// The tensors in a nested value, whatever else it holds.
[[nodiscard]] std::vector<at::Tensor> tensors_in(py::handle value);

}  // namespace aimetpp::python
