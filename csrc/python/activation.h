// SPDX-License-Identifier: BSD-3-Clause
// An activation function that only clamps, and the quantizer behind it: one
// pass over the tensor instead of two. Private to python/.
#pragma once

#include <pybind11/pybind11.h>

#include <optional>

#include "python/quantizer_view.h"

namespace aimetpp::python {

// quantizer(leaf(x)), where the leaf's forward is that of nn.ReLU or
// nn.Hardtanh (nn.ReLU6) and nobody sees what comes between: the bits are the
// same. nullopt where it is not for this function. `overwrites`: whether the
// call was traced as one that writes x.
std::optional<py::object> quantized_activation(const Attributes& leaf,
                                               py::handle leaf_class,
                                               py::handle x,
                                               py::handle quantizer,
                                               bool overwrites);

}  // namespace aimetpp::python
