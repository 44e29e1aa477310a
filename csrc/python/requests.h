// SPDX-License-Identifier: BSD-3-Clause
// Bindings of manual mixed precision: requests, their resolution, its report.
#pragma once

#include <pybind11/pybind11.h>

namespace aimetpp::python {

void bind_requests(pybind11::module_& m);

}  // namespace aimetpp::python
