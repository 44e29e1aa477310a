// SPDX-License-Identifier: BSD-3-Clause
// Masks among traced tensors.
#pragma once

#include <ATen/TracerMode.h>
#include <ATen/core/Tensor.h>
#include <pybind11/pybind11.h>

#include "graph/masks.h"

namespace aimetpp::python {

// A tensor of any dtype on any device, which a trace does not see read.
inline graph::MaskFacts classify_mask(const at::Tensor& tensor, bool negated) {
  const at::tracer::impl::NoTracerDispatchMode untraced;
  const at::Tensor data = tensor.detach().to(at::kCPU, at::kFloat).contiguous();
  return graph::classify_mask(data.const_data_ptr<float>(), data.numel(),
                              negated);
}

inline void bind_masks(pybind11::module_& m) {
  pybind11::class_<graph::MaskFacts>(m, "MaskFacts")
      .def(pybind11::init<>())
      .def_property_readonly("only_masks",  // it adds to no value that counts
                             [](const graph::MaskFacts& facts) {
                               return facts.values ==
                                          graph::MaskValues::zeros ||
                                      facts.values == graph::MaskValues::mask;
                             });
  m.def("classify_mask", &classify_mask, pybind11::arg("tensor"),
        pybind11::arg("negated") = false);
}

}  // namespace aimetpp::python
