// SPDX-License-Identifier: BSD-3-Clause
#include "python/requests.h"

#include <pybind11/functional.h>
#include <pybind11/stl.h>

#include <string>
#include <utility>
#include <vector>

#include "core/error.h"
#include "mixed/kernel_check.h"
#include "mixed/report_text.h"
#include "mixed/resolver.h"
#include "python/convert.h"

namespace py = pybind11;

namespace aimetpp::python {
namespace {

const std::vector<mixed::ReportLine>& section_of(
    const mixed::ResolutionReport& report, const std::string& name) {
  if (name == "requests") return report.requests;
  if (name == "inferred") return report.inferred;
  if (name == "propagated") return report.propagated;
  if (name == "realized") return report.realized;
  if (name == "overruled") return report.overruled;
  if (name == "unchanged") return report.unchanged;
  raise_value_error("no section \"", name, "\" in the report");
}

}  // namespace

void bind_requests(py::module_& m) {
  py::class_<mixed::OpList>(m, "OpList")
      .def(py::init<std::vector<int>>(), py::arg("ops"))
      .def("__len__", &mixed::OpList::size)
      .def(
          "__iter__",
          [](const mixed::OpList& ops) {
            return py::make_iterator(ops.begin(), ops.end());
          },
          py::keep_alive<0, 1>());
  py::implicitly_convertible<py::list, mixed::OpList>();
  py::class_<mixed::Request>(m, "Request")
      .def(py::init(
               [](const std::string& target, std::string subject,
                  std::string source, mixed::OpList ops,
                  std::vector<std::optional<Precision>> activations,
                  std::map<std::string, Precision> params,
                  const std::vector<std::vector<std::pair<int, int>>>& ports,
                  std::vector<int> results) {
                 mixed::Request request{
                     request_target_of(target), std::move(subject),
                     std::move(source),         std::move(ops),
                     std::move(activations),    std::move(params)};
                 for (const auto& entry : ports) {
                   auto& inputs = request.ports.emplace_back();
                   for (const auto& [op, slot] : entry)
                     inputs.push_back({op, slot});
                 }
                 request.results = std::move(results);
                 return request;
               }),
           py::arg("target"), py::arg("subject"), py::arg("source"),
           py::arg("ops"), py::arg("activations"), py::arg("params"),
           py::arg("ports") = std::vector<std::vector<std::pair<int, int>>>(),
           py::arg("results") = std::vector<int>());
  py::class_<mixed::ReportLine>(m, "ReportLine")
      .def_readonly("request", &mixed::ReportLine::request)
      .def_readonly("subject", &mixed::ReportLine::subject)
      .def_readonly("detail", &mixed::ReportLine::detail)
      .def_property_readonly("facts", [](const mixed::ReportLine& line) {
        py::dict facts;
        for (const auto& [name, fact] : line.facts) {
          facts[py::str(name.data(), name.size())] = fact;
        }
        return facts;
      });
  py::class_<mixed::Change>(m, "Change")
      .def_readonly("quantizer", &mixed::Change::quantizer)
      .def_readonly("before", &mixed::Change::before)
      .def_readonly("after", &mixed::Change::after)
      .def_readonly("request", &mixed::Change::request);
  py::class_<mixed::Resolution>(m, "Resolution")
      .def_readonly("precisions", &mixed::Resolution::precisions)
      .def_readonly("changes", &mixed::Resolution::changes)
      .def_readonly("reached", &mixed::Resolution::reached)
      .def_readonly("bit_ops_before", &mixed::Resolution::bit_ops_before)
      .def_readonly("bit_ops_after", &mixed::Resolution::bit_ops_after);
  py::class_<mixed::ResolutionReport>(m, "ResolutionReport")
      .def_readonly("requests", &mixed::ResolutionReport::requests)
      .def_readonly("inferred", &mixed::ResolutionReport::inferred)
      .def_readonly("propagated", &mixed::ResolutionReport::propagated)
      .def_readonly("realized", &mixed::ResolutionReport::realized)
      .def_readonly("overruled", &mixed::ResolutionReport::overruled)
      .def_readonly("unchanged", &mixed::ResolutionReport::unchanged);
  py::class_<mixed::ReportRow>(m, "ReportRow")
      .def_readonly("depth", &mixed::ReportRow::depth)
      .def_readonly("requests", &mixed::ReportRow::requests)
      .def_readonly("subject", &mixed::ReportRow::subject)
      .def_readonly("detail", &mixed::ReportRow::detail);
  m.def(
      "rows_of_section",
      [](const mixed::ResolutionReport& report, const std::string& section) {
        const auto& lines = section_of(report, section);
        return section == "requests" ? mixed::rows_of_requests(lines)
                                     : mixed::rows_of_section(lines);
      },
      py::arg("report"), py::arg("section"));
  m.def("summary_of", &mixed::summary_of, py::arg("resolution"),
        py::arg("report"));
  m.def("report_of", &mixed::report_of, py::arg("graph"), py::arg("placement"),
        py::arg("requests"), py::arg("resolution"));
  m.def("resolve_requests", &mixed::resolve_requests, py::arg("graph"),
        py::arg("placement"), py::arg("current"), py::arg("requests"),
        py::arg("strict"));
  m.def(
      "find_unsupported_ops",
      [](const graph::OpGraph& graph, const config::Placement& placement,
         const std::vector<Precision>& precisions) {
        std::vector<std::pair<int, std::string>> found;
        for (const mixed::UnsupportedOp& op :
             mixed::find_unsupported_ops(graph, placement, precisions)) {
          found.emplace_back(op.op, op.problem);
        }
        return found;
      },
      py::arg("graph"), py::arg("placement"), py::arg("precisions"));
  m.def("resolution_text", &mixed::to_text, py::arg("resolution"),
        py::arg("report"), py::arg("notes") = std::vector<std::string>());
}

}  // namespace aimetpp::python
