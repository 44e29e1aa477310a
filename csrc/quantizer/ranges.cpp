// SPDX-License-Identifier: BSD-3-Clause
// The ranges that statistics yield.
#include <algorithm>
#include <cstdint>
#include <vector>

#include "core/error.h"
#include "quantizer/range_search.h"
#include "quantizer/statistics.h"

namespace aimetpp::quantizer {
namespace {

Range percentile_range(const Statistics& statistics, std::size_t channel,
                       double percentile, int bitwidth, Symmetry symmetry) {
  const float min = statistics.mins()[channel];
  const float max = statistics.maxs()[channel];
  if (percentile == 100) {
    return range_from_min_max(double{min}, double{max}, bitwidth, symmetry);
  }
  const Extremes kept = percentile_extremes(
      statistics.histogram(static_cast<int>(channel)), percentile);
  return range_from_min_max(double{std::clamp(kept.min, min, max)},
                            double{std::clamp(kept.max, min, max)}, bitwidth,
                            symmetry);
}

void require_values(const Statistics& statistics, Scheme scheme) {
  if (statistics.empty()) {
    raise_runtime_error(
        "calibration statistics must hold at least one finite value, got none");
  }
  for (int channel = 0; channel < statistics.num_channels(); ++channel) {
    const auto index = static_cast<std::size_t>(channel);
    if (statistics.mins()[index] > statistics.maxs()[index]) {
      raise_runtime_error("calibration statistics: channel ", channel, " of ",
                          statistics.num_channels(),
                          " must hold at least one finite value, got none");
    }
  }
  if (scheme != Scheme::min_max && statistics.num_bins() == 0) {
    raise_runtime_error(
        "calibration statistics must hold histograms for any scheme but "
        "min_max, got extremes only");
  }
}

// All channels share one grid: without sign only where no channel needs one.
Symmetry shared_symmetry(const Statistics& statistics, Symmetry symmetry) {
  if (symmetry != Symmetry::unsigned_symmetric) return symmetry;
  const bool negative =
      std::any_of(statistics.mins().begin(), statistics.mins().end(),
                  [](float min) { return min < 0; });
  return negative ? Symmetry::symmetric : Symmetry::unsigned_symmetric;
}

}  // namespace

std::vector<Range> ranges_from_statistics(const Statistics& statistics,
                                          Scheme scheme, int bitwidth,
                                          Symmetry symmetry, double percentile,
                                          const ParallelFor& parallel_for) {
  if (scheme == Scheme::percentile &&
      !(percentile >= 50 && percentile <= 100)) {
    raise_value_error("percentile must be between 50 and 100, got ",
                      percentile);
  }
  require_values(statistics, scheme);
  symmetry = shared_symmetry(statistics, symmetry);
  const auto range_of = [&](int channel) {
    const auto index = static_cast<std::size_t>(channel);
    switch (scheme) {
      case Scheme::min_max:
        break;
      case Scheme::percentile:
        return percentile_range(statistics, index, percentile, bitwidth,
                                symmetry);
      case Scheme::tf_enhanced:
        return search_range(statistics.histogram(channel), bitwidth, symmetry,
                            kTfEnhancedSearch);
      case Scheme::mse:
        return search_range(statistics.histogram(channel), bitwidth, symmetry,
                            kMseSearch);
    }
    return range_from_min_max(double{statistics.mins()[index]},
                              double{statistics.maxs()[index]}, bitwidth,
                              symmetry);
  };
  std::vector<Range> ranges(statistics.mins().size());
  // A search looks at the bins for tens of candidates.
  constexpr std::int64_t kLooks = 16;
  parallel_for(statistics.num_channels(),
               std::max(kGrain / (kLooks * (statistics.num_bins() + 1)),
                        std::int64_t{1}),
               [&](std::int64_t begin, std::int64_t end) {
                 for (std::int64_t channel = begin; channel < end; ++channel) {
                   ranges[static_cast<std::size_t>(channel)] =
                       range_of(static_cast<int>(channel));
                 }
               });
  return ranges;
}

std::vector<Range> power_of_two_ranges(const Statistics& statistics,
                                       int bitwidth, Symmetry symmetry) {
  require_values(statistics, Scheme::mse);
  symmetry = shared_symmetry(statistics, symmetry);
  std::vector<Range> ranges;
  for (int channel = 0; channel < statistics.num_channels(); ++channel) {
    ranges.push_back(search_power_of_two_range(statistics.histogram(channel),
                                               bitwidth, symmetry));
  }
  return ranges;
}

}  // namespace aimetpp::quantizer
