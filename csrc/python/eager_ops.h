// SPDX-License-Identifier: BSD-3-Clause
// The ops that models call most, for eager Python: straight to the dispatcher.
// The way through torch.ops takes as long as quantizing some 20,000 elements.
#pragma once

#include <pybind11/pybind11.h>

namespace aimetpp::python {

void bind_eager_ops(pybind11::module_& m);

}  // namespace aimetpp::python
