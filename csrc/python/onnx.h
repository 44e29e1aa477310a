// SPDX-License-Identifier: BSD-3-Clause
// ONNX graphs that Python has parsed.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>
#include <utility>
#include <vector>

#include "core/error.h"
#include "graph/onnx_reader.h"

namespace aimetpp::python {

inline graph::OnnxOrigin onnx_origin_of(const std::string& name) {
  if (name == "computed") return graph::OnnxOrigin::computed;
  if (name == "constant") return graph::OnnxOrigin::constant;
  if (name == "parameter") return graph::OnnxOrigin::parameter;
  raise_value_error(
      "origin must be \"computed\", \"constant\" or \"parameter\", got \"",
      name, "\"");
}

inline void bind_onnx(pybind11::module_& m) {
  namespace py = pybind11;
  using graph::OnnxGraph;
  using graph::OnnxNode;
  using graph::OnnxValue;
  py::class_<OnnxValue>(m, "OnnxValue")
      .def(py::init([](std::string name, const std::string& origin,
                       bool is_floating,
                       std::optional<std::vector<std::int64_t>> shape,
                       std::optional<double> number) {
             return OnnxValue{std::move(name), onnx_origin_of(origin),
                              is_floating, std::move(shape), number};
           }),
           py::arg("name"), py::arg("origin"), py::arg("is_floating"),
           py::arg("shape"), py::arg("number"));
  py::class_<OnnxNode>(m, "OnnxNode")
      .def(py::init([](std::string name, std::string op_type,
                       std::vector<int> inputs, std::vector<int> outputs,
                       std::vector<int> captured,
                       std::map<std::string, std::int64_t> numbers,
                       std::map<std::string, std::string> texts,
                       std::vector<graph::MaskFacts> masks) {
             return OnnxNode{std::move(name),     std::move(op_type),
                             std::move(inputs),   std::move(outputs),
                             std::move(captured), std::move(numbers),
                             std::move(texts),    std::move(masks)};
           }),
           py::arg("name"), py::arg("op_type"), py::arg("inputs"),
           py::arg("outputs"), py::arg("captured"), py::arg("numbers"),
           py::arg("texts"), py::arg("masks"));
  // (graph, (node, slot) by site)
  m.def(
      "read_onnx_graph",
      [](std::vector<OnnxValue> values, std::vector<OnnxNode> nodes,
         std::vector<int> inputs, std::vector<int> outputs) {
        graph::OnnxReading reading = graph::read_onnx_graph(
            OnnxGraph{std::move(values), std::move(nodes), std::move(inputs),
                      std::move(outputs)});
        std::vector<std::pair<int, int>> places;
        for (const auto& place : reading.places) {
          places.emplace_back(place.node, place.slot);
        }
        return std::make_pair(std::move(reading.graph), std::move(places));
      },
      py::arg("values"), py::arg("nodes"), py::arg("inputs"),
      py::arg("outputs"));
}

}  // namespace aimetpp::python
