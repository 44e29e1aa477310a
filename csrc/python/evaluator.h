// SPDX-License-Identifier: BSD-3-Clause
// The search engine's callbacks as Python callables.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/error.h"
#include "mixed/greedy_search.h"

namespace aimetpp::python {

inline const char* phase_name(mixed::Phase phase) {
  return phase == mixed::Phase::sensitivity ? "sensitivity" : "front";
}

inline mixed::Phase phase_of(const std::string& name) {
  if (name == phase_name(mixed::Phase::sensitivity)) {
    return mixed::Phase::sensitivity;
  }
  if (name == phase_name(mixed::Phase::front)) return mixed::Phase::front;
  raise_value_error("phase must be sensitivity or front, got ", name);
}

// Exceptions of the callables pass through the engine unchanged.
class PythonEvaluator : public mixed::Evaluator {
 public:
  PythonEvaluator(pybind11::function evaluate,
                  std::optional<pybind11::function> known,
                  std::optional<pybind11::function> prepare,
                  std::map<std::string, std::string> metrics)
      : evaluate_(std::move(evaluate)),
        known_(std::move(known)),
        prepare_(std::move(prepare)),
        metrics_(std::move(metrics)) {}

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

  void prepare(mixed::Phase phase,
               const std::vector<mixed::Assignment>& assignments) override {
    if (prepare_) (*prepare_)(phase_name(phase), assignments);
  }

  [[nodiscard]] std::string metric(mixed::Phase phase) const override {
    const auto found = metrics_.find(phase_name(phase));
    return found == metrics_.end() ? std::string() : found->second;
  }

 private:
  pybind11::function evaluate_;
  std::optional<pybind11::function> known_;
  std::optional<pybind11::function> prepare_;
  std::map<std::string, std::string> metrics_;  // by phase
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
