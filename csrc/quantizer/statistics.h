// SPDX-License-Identifier: BSD-3-Clause
// What calibration keeps of a tensor, from which the range for any bit-width
// and symmetry can be derived later without data.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/macros.h"
#include "core/types.h"
#include "quantizer/encoding.h"

namespace aimetpp::quantizer {

enum class Scheme : std::uint8_t { min_max, tf_enhanced, percentile };

// Histograms of one channel: equal-width bins over [lo, hi].
struct Histogram {
  float lo = 0;
  float hi = 0;
  std::vector<double> counts;
};

// Statistics of one quantizer: one entry per channel (one channel: per-tensor).
// Infinities are left out of the range; a NaN is a value error.
class AIMETPP_API Statistics {
 public:
  // num_bins 0: extremes only (min_max needs no histogram).
  Statistics(int num_channels, int num_bins, double max_growth);

  // `data` is viewed as [outer, num_channels, inner], contiguous float32.
  void update(const float* data, std::int64_t outer, std::int64_t inner);

  [[nodiscard]] bool empty() const;
  [[nodiscard]] int num_channels() const;
  [[nodiscard]] const std::vector<float>& mins() const;
  [[nodiscard]] const std::vector<float>& maxs() const;
  [[nodiscard]] const std::vector<Histogram>& histograms() const;

  // For copying and pickling: everything as plain numbers.
  [[nodiscard]] std::vector<double> serialize() const;
  static Statistics deserialize(const std::vector<double>& state);
};

// `percentile` in [50, 100], used by Scheme::percentile only. Throws a runtime
// error where the statistics are empty.
AIMETPP_API std::vector<Range> ranges_from_statistics(
    const Statistics& statistics, Scheme scheme, int bitwidth,
    Symmetry symmetry, double percentile);

}  // namespace aimetpp::quantizer
