// SPDX-License-Identifier: BSD-3-Clause
// The smallest and the largest finite value of each channel.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "core/extremes.h"
#include "core/isa.h"
#include "core/parallel.h"

namespace aimetpp::quantizer {

// Elements below which another thread does not pay.
inline constexpr std::int64_t kGrain = 1 << 16;

// data: [outer, num_channels, inner]. Infinities are left out. Nothing where a
// value is NaN.
std::optional<std::vector<Extremes>> channel_extremes_without_nan(
    const float* data, std::int64_t outer, std::int64_t num_channels,
    std::int64_t inner, const ParallelFor& parallel_for = serial_for,
    Isa isa = best_isa());

// The same; throws NanCount's error where a value is NaN.
std::vector<Extremes> channel_extremes(
    const float* data, std::int64_t outer, std::int64_t num_channels,
    std::int64_t inner, const ParallelFor& parallel_for = serial_for,
    Isa isa = best_isa());

// The NaN among values that come one after another.
class NanCount {
 public:
  void include(const float* data, std::int64_t count);
  // Throws a value error that says how many there are and where the first is.
  [[noreturn]] void raise() const;

 private:
  std::int64_t seen_ = 0;
  std::int64_t found_ = 0;
  std::int64_t first_ = 0;
};

}  // namespace aimetpp::quantizer
