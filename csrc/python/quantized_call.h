// SPDX-License-Identifier: BSD-3-Clause
// One call of a quantized module or functional op in an eager forward: the work
// between the user's code and the ops, where Python would cost more than they.
#pragma once

#include <pybind11/pybind11.h>

namespace aimetpp::python {

void bind_quantized_call(pybind11::module_& m);

}  // namespace aimetpp::python
