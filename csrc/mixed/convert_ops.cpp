// SPDX-License-Identifier: BSD-3-Clause
#include "mixed/convert_ops.h"

#include <algorithm>
#include <functional>
#include <limits>
#include <map>
#include <set>
#include <utility>

#include "core/error.h"
#include "mixed/budget_solver.h"
#include "mixed/search_space.h"

namespace aimetpp::mixed {
namespace {

using graph::kNone;

constexpr double kInf = std::numeric_limits<double>::infinity();
// A term with more variables than this gets a variable of its own for the
// precisions that its tensor is converted to.
constexpr std::size_t kLargestScope = 3;

// Groups as variables (label 0: as in `start`), costs relative to the
// baseline's, loads relative to those of `start`.
class ProblemBuilder {
 public:
  ProblemBuilder(const SearchProblem& problem,
                 const std::vector<ConvertPoint>& points,
                 const ConvertTable& table, const Assignment& start,
                 double cost_unit, double load_unit)
      : problem_(problem),
        table_(table),
        cost_unit_(cost_unit),
        load_unit_(load_unit),
        group_of_(problem.fixed_precisions.size(), kNone) {
    for (int g = 0; g < static_cast<int>(start.size()); ++g) {
      for (const auto* members : {&problem.groups[g].activation_quantizers,
                                  &problem.groups[g].param_quantizers}) {
        for (const int quantizer : *members) group_of_[quantizer] = g;
      }
      domains_.push_back(wider_candidates(g, start[g]));
      built_.domain_sizes.push_back(static_cast<int>(domains_[g].size()));
    }
    for (const CostTerm& term : problem.cost_model.terms) add_cost(term);
    for (const ConvertPoint& point : points) add_point(point);
    for (auto& [scope, term] : by_scope_) {
      built_.terms.push_back(std::move(term));
    }
  }

  [[nodiscard]] const BudgetProblem& built() const { return built_; }

  // Of the groups' labels; those of other variables are left out.
  [[nodiscard]] Assignment assignment(const std::vector<int>& labels) const {
    Assignment result;
    for (std::size_t g = 0; g < domains_.size(); ++g) {
      result.push_back(domains_[g][labels[g]]);
    }
    return result;
  }

 private:
  // Labels, by variable, to (cost, load).
  using TermFn =
      std::function<std::pair<double, double>(const std::vector<int>&)>;

  [[nodiscard]] std::vector<int> wider_candidates(int group, int from) const {
    std::vector<int> domain{from};
    if (from == kOff) return domain;
    const SearchGroup& members = problem_.groups[group];
    const Candidate& least = problem_.candidates[from];
    for (const int index : members.candidates) {
      const Candidate& candidate = problem_.candidates[index];
      const bool activation_holds =
          members.activation_quantizers.empty() ||
          candidate.activation.bitwidth() >= least.activation.bitwidth();
      const bool param_holds =
          members.param_quantizers.empty() ||
          candidate.param.bitwidth() >= least.param.bitwidth();
      if (index != from && activation_holds && param_holds) {
        domain.push_back(index);
      }
    }
    return domain;
  }

  // The groups of quantizers, ascending; quantizers outside the search have
  // none.
  [[nodiscard]] std::vector<int> groups_of(
      const std::vector<int>& quantizers) const {
    std::set<int> groups;
    for (const int quantizer : quantizers) {
      if (quantizer != kNone && group_of_[quantizer] != kNone) {
        groups.insert(group_of_[quantizer]);
      }
    }
    return {groups.begin(), groups.end()};
  }

  [[nodiscard]] Precision activation_at(int quantizer,
                                        const std::vector<int>& labels) const {
    const int group = group_of_[quantizer];
    if (group == kNone) return problem_.fixed_precisions[quantizer];
    const int candidate = domains_[group][labels[group]];
    return candidate == kOff ? Precision::fp32()
                             : problem_.candidates[candidate].activation;
  }

  void add_term(const std::vector<int>& scope, const TermFn& value) {
    BudgetTerm& term = by_scope_[scope];
    std::size_t entries = 1;
    for (const int v : scope) {
      entries *= static_cast<std::size_t>(built_.domain_sizes[v]);
    }
    if (term.cost.empty()) term = {scope, Table(entries), Table(entries)};
    std::vector<int> labels(built_.domain_sizes.size());
    for (std::size_t entry = 0; entry < entries; ++entry) {
      std::size_t rest = entry;
      for (auto v = scope.rbegin(); v != scope.rend(); ++v) {
        const auto size = static_cast<std::size_t>(built_.domain_sizes[*v]);
        labels[*v] = static_cast<int>(rest % size);
        rest /= size;
      }
      const auto [cost, load] = value(labels);
      term.cost[entry] += cost;
      term.load[entry] += load;
    }
  }

  void add_cost(const CostTerm& term) {
    const CostModel alone{{term}};
    add_term(groups_of({term.lhs, term.rhs}),
             [&](const std::vector<int>& labels) {
               std::vector<Precision> precisions = problem_.fixed_precisions;
               for (const int group : groups_of({term.lhs, term.rhs})) {
                 set_precisions(problem_, group, domains_[group][labels[group]],
                                &precisions);
               }
               return std::make_pair(alone.cost(precisions) / cost_unit_, 0.0);
             });
  }

  void add_point(const ConvertPoint& point) {
    std::vector<int> quantizers = point.to;
    quantizers.push_back(point.from);
    const std::vector<int> scope = groups_of(quantizers);
    if (scope.empty()) return;  // all fixed
    if (scope.size() > kLargestScope) return add_shared_point(point);
    add_term(scope, [&](const std::vector<int>& labels) {
      std::set<Precision> targets;
      for (const int reader : point.to) {
        targets.insert(activation_at(reader, labels));
      }
      double load = 0;
      for (const Precision& target : targets)
        load += load_of(point, target, labels);
      return std::make_pair(0.0, load);
    });
  }

  // Many readers: a variable says to which precisions the tensor is converted
  // (a bit for each), and each reader forbids those that lack its own.
  void add_shared_point(const ConvertPoint& point) {
    std::set<Precision> kinds;
    for (const int reader : point.to) {
      std::vector<int> labels(built_.domain_sizes.size());
      const int group = group_of_[reader];
      const int count = group == kNone ? 1 : built_.domain_sizes[group];
      for (int label = 0; label < count; ++label) {
        if (group != kNone) labels[group] = label;
        kinds.insert(activation_at(reader, labels));
      }
    }
    const std::vector<Precision> targets(kinds.begin(), kinds.end());
    const int converted = static_cast<int>(built_.domain_sizes.size());
    built_.domain_sizes.push_back(1 << targets.size());
    const auto with = [&](const std::vector<int>& list) {
      std::vector<int> scope = groups_of(list);
      scope.push_back(converted);
      return scope;
    };
    add_term(with({point.from}), [&](const std::vector<int>& labels) {
      double load = 0;
      for (std::size_t t = 0; t < targets.size(); ++t) {
        if ((labels[converted] >> t & 1) != 0) {
          load += load_of(point, targets[t], labels);
        }
      }
      return std::make_pair(0.0, load);
    });
    for (const int reader : point.to) {
      add_term(with({point.from, reader}), [&](const std::vector<int>& labels) {
        const Precision wanted = activation_at(reader, labels);
        const auto t =
            std::find(targets.begin(), targets.end(), wanted) - targets.begin();
        const bool served = wanted == activation_at(point.from, labels) ||
                            (labels[converted] >> t & 1) != 0;
        return std::make_pair(served ? 0.0 : kInf, 0.0);
      });
    }
  }

  [[nodiscard]] double load_of(const ConvertPoint& point, Precision target,
                               const std::vector<int>& labels) const {
    const Precision from = activation_at(point.from, labels);
    return convert_op_cost(point, from, target, table_) / load_unit_;
  }

  const SearchProblem& problem_;
  const ConvertTable& table_;
  const double cost_unit_;
  const double load_unit_;
  std::vector<int> group_of_;              // by quantizer
  std::vector<std::vector<int>> domains_;  // by group: candidates
  std::map<std::vector<int>, BudgetTerm> by_scope_;
  BudgetProblem built_;
};

}  // namespace

std::vector<ConvertSolution> reduce_convert_ops(
    const SearchProblem& problem, const std::vector<ConvertPoint>& points,
    const ConvertTable& table, const Assignment& start,
    const std::vector<double>& alphas) {
  const SearchSpace space(problem);
  const auto describe = [&](double alpha, const Assignment& assignment) {
    ConvertSolution solution;
    solution.alpha = alpha;
    solution.assignment = assignment;
    solution.convert_cost =
        convert_cost(points, precisions_of(problem, assignment), table);
    solution.relative_cost = space.relative_bit_ops(assignment);
    return solution;
  };
  const ConvertSolution first = describe(1, start);
  const double most = first.convert_cost;
  const double unit =
      problem.cost_model.cost(precisions_of(problem, space.baseline()));
  const ProblemBuilder builder(problem, points, table, start,
                               unit > 0 ? unit : 1, most > 0 ? most : 1);
  const BudgetSolver solver(builder.built());
  std::vector<ConvertSolution> solutions;
  for (const double alpha : alphas) {
    if (!(alpha >= 0 && alpha <= 1)) {
      raise_value_error("convert ops: alpha must be between 0 and 1, got ",
                        alpha);
    }
    if (alpha == 1 || most == 0) {
      solutions.push_back(describe(alpha, start));
      continue;
    }
    const BudgetSolution found = solver.solve(alpha);
    solutions.push_back(describe(alpha, builder.assignment(found.labels)));
    solutions.back().within_budget = found.within_budget;
    solutions.back().gap = found.gap;
  }
  return solutions;
}

}  // namespace aimetpp::mixed
