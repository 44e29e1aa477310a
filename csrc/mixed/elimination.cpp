// SPDX-License-Identifier: BSD-3-Clause
#include "mixed/elimination.h"

#include <algorithm>
#include <limits>
#include <utility>

namespace aimetpp::mixed {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();

bool contains(const std::vector<int>& scope, int variable) {
  return std::find(scope.begin(), scope.end(), variable) != scope.end();
}

// Both together without `variable`, ascending.
std::vector<int> joined(std::vector<int> scope, const std::vector<int>& other,
                        int variable) {
  scope.insert(scope.end(), other.begin(), other.end());
  std::sort(scope.begin(), scope.end());
  scope.erase(std::unique(scope.begin(), scope.end()), scope.end());
  std::erase(scope, variable);
  return scope;
}

}  // namespace

Elimination::Elimination(std::vector<int> domain_sizes,
                         std::vector<std::vector<int>> scopes,
                         std::size_t max_entries)
    : domain_sizes_(std::move(domain_sizes)),
      num_given_(static_cast<int>(scopes.size())),
      num_tables_(num_given_) {
  plan(std::move(scopes), max_entries);
}

std::size_t Elimination::entries_of(const std::vector<int>& scope) const {
  std::size_t entries = 1;
  for (const int variable : scope) {
    entries *= static_cast<std::size_t>(domain_sizes_[variable]);
  }
  return entries;
}

std::size_t Elimination::index_of(const std::vector<int>& scope,
                                  const std::vector<int>& labels) const {
  std::size_t index = 0;
  for (const int variable : scope) {
    index = index * static_cast<std::size_t>(domain_sizes_[variable]) +
            static_cast<std::size_t>(labels[variable]);
  }
  return index;
}

// The variable whose elimination makes the smallest table.
int Elimination::cheapest_variable(const std::vector<std::vector<int>>& scopes,
                                   const std::vector<bool>& done) const {
  int cheapest = -1;
  double fewest = kInf;
  for (int v = 0; v < static_cast<int>(domain_sizes_.size()); ++v) {
    if (done[v]) continue;
    std::vector<int> around;
    for (const auto& scope : scopes) {
      if (contains(scope, v)) around = joined(around, scope, v);
    }
    double entries = domain_sizes_[v];  // may exceed any integer
    for (const int variable : around) entries *= domain_sizes_[variable];
    if (entries < fewest) {
      fewest = entries;
      cheapest = v;
    }
  }
  return cheapest;
}

void Elimination::plan(std::vector<std::vector<int>> scopes,
                       std::size_t max_entries) {
  std::vector<bool> done(domain_sizes_.size());
  // Of all tables, messages included; those used up become empty.
  std::vector<std::vector<int>> open = scopes;
  for (std::size_t step = 0; step < domain_sizes_.size(); ++step) {
    const int v = cheapest_variable(open, done);
    done[v] = true;
    std::vector<std::pair<std::vector<int>, std::vector<int>>> parts;
    for (int table = 0; table < static_cast<int>(open.size()); ++table) {
      if (!contains(open[table], v)) continue;
      const auto fits = [&](const auto& part) {
        const auto scope = joined(part.first, open[table], v);
        return entries_of(scope) * static_cast<std::size_t>(domain_sizes_[v]) <=
               max_entries;
      };
      auto part = std::find_if(parts.begin(), parts.end(), fits);
      if (part == parts.end()) part = parts.emplace(parts.end());
      part->first = joined(part->first, open[table], v);
      part->second.push_back(table);
    }
    exact_ = exact_ && parts.size() <= 1;
    if (parts.empty()) parts.push_back({});
    for (auto& [scope, tables] : parts) add_bucket(v, scope, tables, &scopes);
    for (const auto& [scope, tables] : parts) {
      for (const int table : tables) open[table].clear();
      open.push_back(scope);
    }
  }
}

// `scopes` holds those of the given tables and of the messages so far.
void Elimination::add_bucket(int variable, std::vector<int> scope,
                             const std::vector<int>& tables,
                             std::vector<std::vector<int>>* scopes) {
  Bucket bucket;
  bucket.variable = variable;
  bucket.message = num_tables_++;
  scopes->push_back(scope);
  if (scope.empty()) constants_.push_back(bucket.message);
  scope.push_back(variable);
  bucket.entries = entries_of(scope);
  for (const int table : tables) {
    bucket.inputs.push_back({table, (*scopes)[table], {}});
    bucket.inputs.back().index.reserve(bucket.entries);
  }
  std::vector<int> labels(domain_sizes_.size());
  for (std::size_t entry = 0; entry < bucket.entries; ++entry) {
    std::size_t rest = entry;
    for (auto v = scope.rbegin(); v != scope.rend(); ++v) {
      const auto size = static_cast<std::size_t>(domain_sizes_[*v]);
      labels[*v] = static_cast<int>(rest % size);
      rest /= size;
    }
    for (Input& input : bucket.inputs) {
      input.index.push_back(
          static_cast<std::uint32_t>(index_of(input.scope, labels)));
    }
  }
  bucket.scope = std::move(scope);
  buckets_.push_back(std::move(bucket));
}

double Elimination::minimize(const std::vector<Table>& tables,
                             std::vector<int>* labels) const {
  std::vector<Table> messages(
      static_cast<std::size_t>(num_tables_ - num_given_));
  const auto table_of = [&](int table) -> const Table& {
    return table < num_given_ ? tables[table] : messages[table - num_given_];
  };
  Table sums;
  for (const Bucket& bucket : buckets_) {
    sums.assign(bucket.entries, 0.0);
    for (const Input& input : bucket.inputs) {
      const Table& table = table_of(input.table);
      for (std::size_t entry = 0; entry < bucket.entries; ++entry) {
        sums[entry] += table[input.index[entry]];
      }
    }
    const auto size = static_cast<std::size_t>(domain_sizes_[bucket.variable]);
    Table& message = messages[bucket.message - num_given_];
    message.resize(bucket.entries / size);
    for (std::size_t entry = 0; entry < message.size(); ++entry) {
      const auto first =
          sums.begin() + static_cast<std::ptrdiff_t>(entry * size);
      message[entry] =
          *std::min_element(first, first + static_cast<std::ptrdiff_t>(size));
    }
  }
  double value = 0;
  for (const int constant : constants_) value += table_of(constant).front();

  labels->assign(domain_sizes_.size(), 0);
  std::vector<double> of_label;
  for (auto bucket = buckets_.rbegin(); bucket != buckets_.rend();) {
    const int v = bucket->variable;
    of_label.assign(static_cast<std::size_t>(domain_sizes_[v]), 0.0);
    for (; bucket != buckets_.rend() && bucket->variable == v; ++bucket) {
      for (const Input& input : bucket->inputs) {
        for (int label = 0; label < domain_sizes_[v]; ++label) {
          (*labels)[v] = label;
          of_label[label] +=
              table_of(input.table)[index_of(input.scope, *labels)];
        }
      }
    }
    (*labels)[v] = static_cast<int>(
        std::min_element(of_label.begin(), of_label.end()) - of_label.begin());
  }
  return value;
}

}  // namespace aimetpp::mixed
