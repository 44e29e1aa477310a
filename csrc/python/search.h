// SPDX-License-Identifier: BSD-3-Clause
// Bindings of quantizer groups, costs and automatic mixed precision.
#pragma once

#include <pybind11/pybind11.h>

namespace aimetpp::python {

void bind_groups(pybind11::module_& m);
void bind_search(pybind11::module_& m);

}  // namespace aimetpp::python
