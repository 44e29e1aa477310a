// SPDX-License-Identifier: BSD-3-Clause
// Automatic mixed precision with one metric: groups in ascending order of what
// narrowing each alone costs are narrowed one after the other, until the next
// one would break the target.
#pragma once

#include <cstdint>
#include <optional>

#include "core/macros.h"
#include "mixed/greedy_search.h"

namespace aimetpp::mixed {

enum class AtBreak : std::uint8_t {
  stop,  // at the first group that breaks the target, which stays as it was
  skip,  // leave it as it was and try the others
};

struct NarrowingOptions {
  // Largest loss against full precision; nullopt: narrow everything, and score
  // every step.
  std::optional<double> allowed_drop = {};
  AtBreak at_break = AtBreak::stop;
  // Stop once so many groups are narrower than the baseline.
  std::optional<int> max_narrowed = {};
};

// Source: AMD Quark's tutorial on mixed precision, "Auto Mixed Precision".
// Every score is in Phase::front: of full precision, of the baseline (the
// widest candidate that every group supports), of the baseline with one group
// narrowed, and of the walk, whose first step is thereby known. A group with
// several narrower candidates is tried at each in its turn, and only narrows.
// With a drop and no `max_narrowed`, every group at its narrowest is scored
// first, and chosen where it meets the target.
//
// In the result, `walk` holds every step that was scored, in order, also those
// that broke the target; `chosen` is the last that did not. Throws as
// greedy_search does, and a value error for a negative `max_narrowed`.
AIMETPP_API SearchResult narrowing_search(const SearchProblem& problem,
                                          const NarrowingOptions& options,
                                          Evaluator& evaluator,
                                          const ProgressFn& progress = {});

}  // namespace aimetpp::mixed
