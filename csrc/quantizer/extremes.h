// SPDX-License-Identifier: BSD-3-Clause
// The smallest and the largest finite value of each channel.
#pragma once

#include <cstdint>
#include <limits>
#include <vector>

namespace aimetpp::quantizer {

// min > max: no finite value was seen.
struct Extremes {
  float min = std::numeric_limits<float>::infinity();
  float max = -std::numeric_limits<float>::infinity();

  [[nodiscard]] bool empty() const { return min > max; }
  void include(const Extremes& other) {
    if (other.min < min) min = other.min;
    if (other.max > max) max = other.max;
  }
};

// data: [outer, num_channels, inner]. Infinities are left out. Throws a value
// error that says how many NaN there are and where the first one is.
std::vector<Extremes> channel_extremes(const float* data, std::int64_t outer,
                                       std::int64_t num_channels,
                                       std::int64_t inner);

}  // namespace aimetpp::quantizer
