// SPDX-License-Identifier: BSD-3-Clause
#include "python/search.h"

#include <pybind11/functional.h>
#include <pybind11/stl.h>

#include <map>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "groups/quantizer_group.h"
#include "mixed/convert_ops.h"
#include "mixed/cost_model.h"
#include "mixed/cost_table.h"
#include "mixed/greedy_search.h"
#include "mixed/memory_model.h"
#include "mixed/narrowing_search.h"
#include "mixed/search_counts.h"
#include "python/convert.h"
#include "python/evaluator.h"

namespace py = pybind11;

namespace aimetpp::python {

void bind_groups(py::module_& m) {
  py::class_<groups::QuantizerGroup>(m, "QuantizerGroup")
      .def_readonly("name", &groups::QuantizerGroup::name)
      .def_readonly("activation_quantizers",
                    &groups::QuantizerGroup::activation_quantizers)
      .def_readonly("param_quantizers",
                    &groups::QuantizerGroup::param_quantizers)
      .def_readonly("ops", &groups::QuantizerGroup::ops);
  m.def("build_groups", &groups::build_groups, py::arg("graph"),
        py::arg("placement"));
  m.def("supported_candidates", &groups::supported_candidates, py::arg("group"),
        py::arg("graph"), py::arg("placement"), py::arg("candidates"),
        py::arg("use_all"), py::arg("pinned") = std::map<int, Precision>());
}

namespace {

mixed::SearchProblem make_problem(std::vector<Candidate> candidates,
                                  const std::vector<py::dict>& groups,
                                  const mixed::CostModel& cost_model,
                                  std::vector<Precision> fixed_precisions) {
  mixed::SearchProblem problem;
  problem.candidates = std::move(candidates);
  problem.cost_model = cost_model;
  problem.num_quantizers = static_cast<int>(fixed_precisions.size());
  problem.fixed_precisions = std::move(fixed_precisions);
  for (const auto& group : groups) {
    problem.groups.push_back(
        {group["name"].cast<std::string>(),
         group["activation_quantizers"].cast<std::vector<int>>(),
         group["param_quantizers"].cast<std::vector<int>>(),
         group["candidates"].cast<std::vector<int>>()});
  }
  return problem;
}

mixed::SearchOptions make_options(std::optional<double> allowed_drop, int algo,
                                  bool reverse, std::optional<int> max_steps) {
  mixed::SearchOptions options{allowed_drop, search_algo_of(algo), reverse};
  if (max_steps) options.max_steps = *max_steps;
  return options;
}

using MetricNames = std::map<std::string, std::string>;  // by phase

mixed::SearchResult greedy_search(const mixed::SearchProblem& problem,
                                  const mixed::SearchOptions& options,
                                  py::function evaluate,
                                  const std::optional<py::function>& progress,
                                  std::optional<py::function> known,
                                  std::optional<py::function> prepare,
                                  MetricNames metrics) {
  PythonEvaluator evaluator(std::move(evaluate), std::move(known),
                            std::move(prepare), std::move(metrics));
  return mixed::greedy_search(problem, options, evaluator,
                              progress_of(progress));
}

// (least, most) by phase.
std::map<std::string, std::pair<int, int>> by_phase(
    const mixed::EvaluationCounts& counts) {
  return {{phase_name(mixed::Phase::sensitivity),
           {counts.sensitivity_least, counts.sensitivity_most}},
          {phase_name(mixed::Phase::front),
           {counts.front_least, counts.front_most}}};
}

mixed::SearchResult narrowing_search(
    const mixed::SearchProblem& problem, std::optional<double> allowed_drop,
    bool skip_breaking, std::optional<int> max_narrowed, py::function evaluate,
    const std::optional<py::function>& progress,
    std::optional<py::function> known, std::optional<py::function> prepare,
    MetricNames metrics) {
  PythonEvaluator evaluator(std::move(evaluate), std::move(known),
                            std::move(prepare), std::move(metrics));
  const auto at_break =
      skip_breaking ? mixed::AtBreak::skip : mixed::AtBreak::stop;
  return mixed::narrowing_search(problem,
                                 {allowed_drop, at_break, max_narrowed},
                                 evaluator, progress_of(progress));
}

// A row: (op, activation, param or None, cost).
using Row =
    std::tuple<std::string, Precision, std::optional<Precision>, double>;

mixed::CostModel table_cost_model(const graph::OpGraph& graph,
                                  const config::Placement& placement,
                                  const std::vector<Row>& rows) {
  std::vector<mixed::CostRow> converted;
  for (const auto& [op, activation, param, cost] : rows) {
    converted.push_back({op, activation, param, cost});
  }
  return mixed::build_table_cost_model(graph, placement, converted);
}

void bind_convert_ops(py::module_& m) {
  py::class_<mixed::ConvertPoint>(m, "ConvertPoint")
      .def_readonly("tensor", &mixed::ConvertPoint::tensor)
      .def_readonly("elements", &mixed::ConvertPoint::elements)
      .def_readonly("from_quantizer", &mixed::ConvertPoint::from)
      .def_readonly("to_quantizers", &mixed::ConvertPoint::to);
  m.def("find_convert_points", &mixed::find_convert_points, py::arg("graph"),
        py::arg("placement"));
  m.def("convert_cost", &mixed::convert_cost, py::arg("points"),
        py::arg("precisions"), py::arg("table"));
  py::class_<mixed::ConvertSolution>(m, "ConvertSolution")
      .def_readonly("alpha", &mixed::ConvertSolution::alpha)
      .def_readonly("assignment", &mixed::ConvertSolution::assignment)
      .def_readonly("convert_cost", &mixed::ConvertSolution::convert_cost)
      .def_readonly("relative_cost", &mixed::ConvertSolution::relative_cost)
      .def_readonly("within_budget", &mixed::ConvertSolution::within_budget)
      .def_readonly("gap", &mixed::ConvertSolution::gap);
  m.def("reduce_convert_ops", &mixed::reduce_convert_ops, py::arg("problem"),
        py::arg("points"), py::arg("table"), py::arg("start"),
        py::arg("alphas"));
}

void bind_search_results(py::module_& m) {
  py::class_<mixed::Sensitivity>(m, "Sensitivity")
      .def_readonly("group", &mixed::Sensitivity::group)
      .def_readonly("candidate", &mixed::Sensitivity::candidate)
      .def_readonly("score", &mixed::Sensitivity::score)
      .def_readonly("bit_ops_reduction",
                    &mixed::Sensitivity::bit_ops_reduction);
  py::class_<mixed::FrontPoint>(m, "FrontPoint")
      .def_readonly("relative_bit_ops", &mixed::FrontPoint::relative_bit_ops)
      .def_readonly("score", &mixed::FrontPoint::score)
      .def_readonly("group", &mixed::FrontPoint::group)
      .def_readonly("candidate", &mixed::FrontPoint::candidate)
      .def_readonly("assignment", &mixed::FrontPoint::assignment)
      .def_readonly("dominated", &mixed::FrontPoint::dominated);
  py::class_<mixed::SkippedStep>(m, "SkippedStep")
      .def_readonly("relative_bit_ops", &mixed::SkippedStep::relative_bit_ops)
      .def_readonly("group", &mixed::SkippedStep::group)
      .def_readonly("candidate", &mixed::SkippedStep::candidate)
      .def_readonly("lowest", &mixed::SkippedStep::lowest)
      .def_readonly("highest", &mixed::SkippedStep::highest);
  py::class_<mixed::SearchResult>(m, "SearchResult")
      .def_readonly("fp32_score", &mixed::SearchResult::fp32_score)
      .def_readonly("baseline_score", &mixed::SearchResult::baseline_score)
      .def_readonly("final_score", &mixed::SearchResult::final_score)
      .def_readonly("baseline_candidate",
                    &mixed::SearchResult::baseline_candidate)
      .def_readonly("sensitivities", &mixed::SearchResult::sensitivities)
      .def_readonly("walk", &mixed::SearchResult::walk)
      .def_readonly("points", &mixed::SearchResult::points)
      .def_readonly("skipped", &mixed::SearchResult::skipped)
      .def_readonly("chosen", &mixed::SearchResult::chosen)
      .def_readonly("final_assignment", &mixed::SearchResult::final_assignment)
      .def_readonly("target", &mixed::SearchResult::target)
      .def_readonly("stop_reason", &mixed::SearchResult::stop_reason)
      .def_readonly("evaluations", &mixed::SearchResult::evaluations);
}

void bind_searches(py::module_& m) {
  py::class_<mixed::SearchOptions>(m, "SearchOptions")
      .def(py::init(&make_options), py::arg("allowed_drop"), py::arg("algo"),
           py::arg("reverse") = false, py::arg("max_steps") = py::none());
  m.def("greedy_search", &greedy_search, py::arg("problem"), py::arg("options"),
        py::arg("evaluate"), py::arg("progress") = py::none(),
        py::arg("known") = py::none(), py::arg("prepare") = py::none(),
        py::arg("metrics") = MetricNames());
  m.def("narrowing_search", &narrowing_search, py::arg("problem"),
        py::arg("allowed_drop"), py::arg("skip_breaking"),
        py::arg("max_narrowed"), py::arg("evaluate"),
        py::arg("progress") = py::none(), py::arg("known") = py::none(),
        py::arg("prepare") = py::none(), py::arg("metrics") = MetricNames());
  m.def(
      "count_evaluations",
      [](const mixed::SearchProblem& problem,
         const mixed::SearchOptions& options) {
        return by_phase(mixed::count_evaluations(problem, options));
      },
      py::arg("problem"), py::arg("options"));
  m.def(
      "list_evaluations",
      [](const mixed::SearchProblem& problem, const std::string& phase) {
        return mixed::list_evaluations(problem, phase_of(phase));
      },
      py::arg("problem"), py::arg("phase"));
  m.def(
      "count_reference_evaluations",
      [](const mixed::SearchProblem& problem,
         const mixed::SearchOptions& options) {
        return by_phase(mixed::count_reference_evaluations(problem, options));
      },
      py::arg("problem"), py::arg("options"));
}

}  // namespace

void bind_search(py::module_& m) {
  py::class_<mixed::CostModel>(m, "CostModel")
      .def("bit_ops", &mixed::CostModel::bit_ops, py::arg("precisions"))
      .def("cost", &mixed::CostModel::cost, py::arg("precisions"));
  py::class_<mixed::MemoryModel>(m, "MemoryModel")
      .def("weight_bytes", &mixed::MemoryModel::weight_bytes,
           py::arg("precisions"))
      .def("activation_bytes", &mixed::MemoryModel::activation_bytes,
           py::arg("precisions"));
  m.def("build_memory_model", &mixed::build_memory_model, py::arg("graph"),
        py::arg("placement"));
  m.def("build_table_cost_model", &table_cost_model, py::arg("graph"),
        py::arg("placement"), py::arg("rows"));
  m.def("build_cost_model", &mixed::build_cost_model, py::arg("graph"),
        py::arg("placement"));
  bind_search_results(m);
  py::class_<mixed::SearchProblem>(m, "SearchProblem")
      .def(py::init(&make_problem), py::arg("candidates"), py::arg("groups"),
           py::arg("cost_model"), py::arg("fixed_precisions"));
  bind_searches(m);
  bind_convert_ops(m);
}

}  // namespace aimetpp::python
