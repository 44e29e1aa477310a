// SPDX-License-Identifier: BSD-3-Clause
// The minimum of a sum of functions, each of a few discrete variables, by
// eliminating one variable after the other.
//
// Source: Dechter, "Bucket elimination", 1999; on chains and trees it is plain
// dynamic programming. Where a table would grow beyond a limit, the bucket is
// split (Dechter and Rish, "Mini-buckets", 2003), and the value is a lower
// bound.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace aimetpp::mixed {

// Values of one function over its scope, the last variable fastest.
using Table = std::vector<double>;

class Elimination {
 public:
  // One scope per function: distinct variables, indices in `domain_sizes`.
  Elimination(std::vector<int> domain_sizes,
              std::vector<std::vector<int>> scopes,
              std::size_t max_entries = std::size_t{1} << 18);

  // Value at the minimum of the tables' sum (one table per scope; infinity
  // forbids), or a lower bound of it where not exact(). `labels` becomes where
  // the minimum is, or a good place; the first of equal labels is taken.
  double minimize(const std::vector<Table>& tables,
                  std::vector<int>* labels) const;

  [[nodiscard]] bool exact() const { return exact_; }

 private:
  // A table that a bucket adds up: one that was given, or a message of an
  // earlier bucket.
  struct Input {
    int table;
    std::vector<int> scope;
    std::vector<std::uint32_t> index;  // by entry of the bucket
  };
  struct Bucket {
    int variable;
    std::vector<int> scope;  // the variable last
    std::size_t entries;
    std::vector<Input> inputs;
    int message;  // over the scope without the variable
  };

  void plan(std::vector<std::vector<int>> scopes, std::size_t max_entries);
  [[nodiscard]] int cheapest_variable(
      const std::vector<std::vector<int>>& scopes,
      const std::vector<bool>& done) const;
  void add_bucket(int variable, std::vector<int> scope,
                  const std::vector<int>& tables,
                  std::vector<std::vector<int>>* scopes);
  [[nodiscard]] std::size_t entries_of(const std::vector<int>& scope) const;
  [[nodiscard]] std::size_t index_of(const std::vector<int>& scope,
                                     const std::vector<int>& labels) const;

  std::vector<int> domain_sizes_;
  int num_given_ = 0;
  int num_tables_ = 0;
  std::vector<Bucket> buckets_;  // in the order of elimination
  std::vector<int> constants_;   // messages over nothing
  bool exact_ = true;
};

}  // namespace aimetpp::mixed
