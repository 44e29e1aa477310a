// SPDX-License-Identifier: BSD-3-Clause
// The search engine's callbacks as Python callables.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>
#include <utility>

#include "mixed/greedy_search.h"

namespace aimetpp::python {

inline const char* phase_name(mixed::Phase phase) {
  return phase == mixed::Phase::sensitivity ? "sensitivity" : "front";
}

// Exceptions of the callables pass through the engine unchanged.
class PythonEvaluator : public mixed::Evaluator {
 public:
  PythonEvaluator(pybind11::function evaluate,
                  std::optional<pybind11::function> known)
      : evaluate_(std::move(evaluate)), known_(std::move(known)) {}

  double evaluate(mixed::Phase phase,
                  const mixed::Assignment& assignment) override {
    return evaluate_(phase_name(phase), assignment).cast<double>();
  }

  std::optional<double> known(mixed::Phase phase,
                              const mixed::Assignment& assignment) override {
    if (!known_) return std::nullopt;
    return (*known_)(phase_name(phase), assignment)
        .cast<std::optional<double>>();
  }

 private:
  pybind11::function evaluate_;
  std::optional<pybind11::function> known_;
};

// Empty where there is no callable.
inline mixed::ProgressFn progress_of(
    const std::optional<pybind11::function>& progress) {
  if (!progress) return {};
  return [report = *progress](mixed::Phase phase, int done, int total) {
    report(phase_name(phase), done, total);
  };
}

}  // namespace aimetpp::python
