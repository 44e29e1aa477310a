// SPDX-License-Identifier: BSD-3-Clause
// Bindings of what nn/replay.py needs: recordings, and what tells whether a
// model or its quantizers are as they were.
#pragma once

#include <pybind11/pybind11.h>

namespace aimetpp::python {

void bind_replay(pybind11::module_& m);

}  // namespace aimetpp::python
