// SPDX-License-Identifier: BSD-3-Clause
#include "mixed/search_space.h"

#include <algorithm>
#include <map>
#include <string>
#include <utility>

#include "core/error.h"
#include "mixed/cost_table.h"

namespace aimetpp::mixed {
namespace {

bool supports(const SearchGroup& group, int candidate) {
  return std::find(group.candidates.begin(), group.candidates.end(),
                   candidate) != group.candidates.end();
}

}  // namespace

SearchSpace::SearchSpace(const SearchProblem& problem) : problem_(problem) {
  check();
  baseline_candidate_ = widest_common_candidate();
  baseline_.assign(problem.groups.size(), baseline_candidate_);
  baseline_bit_ops_ = bit_ops(baseline_);
  moves_ = narrowing_moves();
}

void SearchSpace::check() const {
  if (problem_.candidates.empty()) {
    raise_value_error(
        "mixed precision search: at least one candidate is required");
  }
  if (problem_.groups.empty()) {
    raise_value_error(
        "mixed precision search: at least one quantizer group is required; no "
        "enabled "
        "quantizer is left to search");
  }
  const int count = static_cast<int>(problem_.candidates.size());
  for (const SearchGroup& group : problem_.groups) {
    for (const int candidate : group.candidates) {
      if (candidate < 0 || candidate >= count) {
        raise_value_error("mixed precision search: group ", group.name,
                          " supports candidate ", candidate, ", but there are ",
                          count);
      }
    }
    for (const auto* members :
         {&group.activation_quantizers, &group.param_quantizers}) {
      for (const int quantizer : *members) {
        if (quantizer < 0 || quantizer >= problem_.num_quantizers) {
          raise_value_error("mixed precision search: group ", group.name,
                            " holds quantizer ", quantizer, ", but there are ",
                            problem_.num_quantizers);
        }
      }
    }
  }
  if (static_cast<int>(problem_.fixed_precisions.size()) !=
      problem_.num_quantizers) {
    raise_value_error("mixed precision search: fixed_precisions must have ",
                      problem_.num_quantizers,
                      " entries, one per quantizer, got ",
                      problem_.fixed_precisions.size());
  }
  check_cost_table(problem_);
}

int SearchSpace::widest_common_candidate() const {
  int widest = kOff;
  std::pair<int, int> most{0, 0};  // product of the bits, activation bits
  for (int index = 0; index < static_cast<int>(problem_.candidates.size());
       ++index) {
    if (!std::all_of(problem_.groups.begin(), problem_.groups.end(),
                     [index](const SearchGroup& group) {
                       return supports(group, index);
                     })) {
      continue;
    }
    const Candidate& candidate = problem_.candidates[index];
    const int activation = candidate.activation.bitwidth();
    const std::pair<int, int> bits{activation * candidate.param.bitwidth(),
                                   activation};
    if (bits > most) {
      widest = index;
      most = bits;
    }
  }
  if (widest != kOff) return widest;
  std::string support;
  for (const SearchGroup& group : problem_.groups) {
    support += "\n  " + group.name + ":";
    for (const int candidate : group.candidates) {
      support += " " + problem_.candidates[candidate].name();
    }
  }
  raise_value_error(
      "mixed precision search: a candidate that every quantizer group supports "
      "is "
      "required as the baseline; the groups support",
      support);
}

bool SearchSpace::narrows(int group, int from, int to) const {
  const SearchGroup& searched = problem_.groups[group];
  const Candidate& before = problem_.candidates[from];
  const Candidate& after = problem_.candidates[to];
  bool fewer = false;
  bool more = false;
  const auto compare = [&](const std::vector<int>& members, int old_bits,
                           int new_bits) {
    if (members.empty()) return;
    fewer = fewer || new_bits < old_bits;
    more = more || new_bits > old_bits;
  };
  compare(searched.activation_quantizers, before.activation.bitwidth(),
          after.activation.bitwidth());
  compare(searched.param_quantizers, before.param.bitwidth(),
          after.param.bitwidth());
  return fewer && !more;
}

std::vector<Move> SearchSpace::narrowing_moves() const {
  std::vector<Move> moves;
  const Candidate& base = problem_.candidates[baseline_candidate_];
  for (int g = 0; g < static_cast<int>(problem_.groups.size()); ++g) {
    const SearchGroup& group = problem_.groups[g];
    std::vector<Candidate> effects;
    for (int index = 0; index < static_cast<int>(problem_.candidates.size());
         ++index) {
      if (!supports(group, index)) continue;
      if (!narrows(g, baseline_candidate_, index)) continue;
      Candidate effect = problem_.candidates[index];
      if (group.activation_quantizers.empty()) {
        effect.activation = base.activation;
      }
      if (group.param_quantizers.empty()) effect.param = base.param;
      if (std::find(effects.begin(), effects.end(), effect) != effects.end()) {
        continue;
      }
      effects.push_back(effect);
      moves.push_back({g, index});
    }
  }
  return moves;
}

Assignment SearchSpace::all_narrow() const {
  Assignment assignment = baseline_;
  std::map<int, std::pair<double, int>> best;  // by group: saving, minus bits
  for (const Move& move : moves_) {
    const SearchGroup& group = problem_.groups[move.group];
    const Candidate& candidate = problem_.candidates[move.candidate];
    int bits = 0;
    if (!group.activation_quantizers.empty()) {
      bits += candidate.activation.bitwidth();
    }
    if (!group.param_quantizers.empty()) bits += candidate.param.bitwidth();
    const std::pair<double, int> key{bit_ops_reduction(move), -bits};
    const auto found = best.find(move.group);
    if (found != best.end() && key <= found->second) continue;
    best[move.group] = key;
    assignment[move.group] = move.candidate;
  }
  return assignment;
}

Assignment SearchSpace::alone(const Move& move) const {
  Assignment assignment(problem_.groups.size(), kOff);
  assignment[move.group] = move.candidate;
  return assignment;
}

double SearchSpace::bit_ops_reduction(const Move& move) const {
  Assignment assignment = baseline_;
  assignment[move.group] = move.candidate;
  return baseline_bit_ops_ - bit_ops(assignment);
}

double SearchSpace::relative_bit_ops(const Assignment& assignment) const {
  if (baseline_bit_ops_ == 0) return 1;
  return bit_ops(assignment) / baseline_bit_ops_;
}

double SearchSpace::bit_ops(const Assignment& assignment) const {
  return problem_.cost_model.cost(precisions_of(problem_, assignment));
}

void set_precisions(const SearchProblem& problem, int group, int candidate,
                    std::vector<Precision>* precisions) {
  const SearchGroup& members = problem.groups[group];
  const Candidate at = candidate == kOff
                           ? Candidate{Precision::fp32(), Precision::fp32()}
                           : problem.candidates[candidate];
  for (const int quantizer : members.activation_quantizers) {
    (*precisions)[quantizer] = at.activation;
  }
  for (const int quantizer : members.param_quantizers) {
    (*precisions)[quantizer] = at.param;
  }
}

std::vector<Precision> precisions_of(const SearchProblem& problem,
                                     const Assignment& assignment) {
  std::vector<Precision> precisions = problem.fixed_precisions;
  for (int g = 0; g < static_cast<int>(assignment.size()); ++g) {
    set_precisions(problem, g, assignment[g], &precisions);
  }
  return precisions;
}

}  // namespace aimetpp::mixed
