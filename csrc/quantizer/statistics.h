// SPDX-License-Identifier: BSD-3-Clause
// What calibration keeps of a tensor, from which the range for any bit-width
// and symmetry can be derived later without data.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <vector>

#include "core/macros.h"
#include "core/parallel.h"
#include "quantizer/encoding.h"
#include "quantizer/histogram.h"

namespace aimetpp::quantizer {

// How a range is chosen.
//   min_max      all that was seen
//   tf_enhanced  least squared error over the histogram, clipping error
//                counted threefold (AIMET's SQNR search)
//   percentile   without the (100 - percentile) % at each end
//   mse          least squared error over a finer histogram and finer
//                candidates, clipping error counted as it is
enum class Scheme : std::uint8_t { min_max, tf_enhanced, percentile, mse };

// Values of some channels: [outer, channels, inner], contiguous.
struct ValueBlock {
  const float* data = nullptr;
  std::int64_t outer = 0;
  std::int64_t channels = 1;
  std::int64_t inner = 0;
  std::int64_t first_channel = 0;

  [[nodiscard]] std::int64_t numel() const { return outer * channels * inner; }
};

// Hands a tensor's values to a function, block by block.
using ValueBlocks =
    std::function<void(const std::function<void(const ValueBlock&)>&)>;

// Statistics of one quantizer: one entry per channel (one channel: per-tensor).
// Infinities are left out of the range and counted in the end bins.
class AIMETPP_API Statistics {
 public:
  static constexpr double kUnlimitedGrowth =
      std::numeric_limits<double>::infinity();

  // num_bins 0: extremes only (min_max needs no histogram). max_growth >= 1: by
  // how many times its first range a histogram may be extended, half on each
  // side. Throws a value error for other numbers.
  Statistics(int num_channels, int num_bins, double max_growth);

  // With the bins and the growth that the scheme is defined with: 512 bins and
  // 3 for tf_enhanced, 2048 and unlimited for percentile and mse. What the
  // first `first_updates` bring is the first range: as many as there are
  // tensors, of one forward, that the statistics are of.
  static Statistics for_scheme(int num_channels, Scheme scheme,
                               int first_updates = 1);

  // `data` is viewed as [outer, num_channels, inner], contiguous float32. No
  // elements: no change. Throws a value error where a value is NaN; the
  // statistics are then as before. They do not depend on the threads.
  void update(const float* data, std::int64_t outer, std::int64_t inner,
              const ParallelFor& parallel_for = serial_for);

  // The same with values that lie elsewhere, or otherwise: `blocks` is called
  // two or three times, and hands over the same ones each time. The statistics
  // do not depend on how the values are cut into blocks.
  void update(const ValueBlocks& blocks,
              const ParallelFor& parallel_for = serial_for);

  // Takes in what other statistics of the same channels, bins and growth have
  // seen, as if that data had come after this one's. Extremes are those of all
  // data; of histograms histogram_sum.h says how near they are. Throws a value
  // error for statistics of another shape.
  void merge(const Statistics& other);

  // No finite value was seen.
  [[nodiscard]] bool empty() const;
  [[nodiscard]] int num_channels() const {
    return static_cast<int>(mins_.size());
  }
  [[nodiscard]] int num_bins() const { return num_bins_; }
  // +infinity and -infinity for a channel of which no finite value was seen.
  [[nodiscard]] const std::vector<float>& mins() const { return mins_; }
  [[nodiscard]] const std::vector<float>& maxs() const { return maxs_; }
  // Requires num_bins > 0; counts are empty for a channel without values.
  [[nodiscard]] Histogram histogram(int channel) const;
  // Of memory that is kept.
  [[nodiscard]] std::size_t bytes() const;

  friend bool operator==(const Statistics&, const Statistics&) = default;

  // For pickling: everything as plain numbers. deserialize throws a
  // value error for numbers that serialize did not write.
  [[nodiscard]] std::vector<double> serialize() const;
  static Statistics deserialize(const std::vector<double>& state);

 private:
  bool update_in_one_pass(const float* data, std::int64_t count,
                          const ParallelFor& parallel_for);
  void include(std::size_t channel, const Extremes& extremes);
  [[nodiscard]] double growth() const;
  void limit_growth();
  // What the values of one update ask of the histograms.
  struct Room {
    std::vector<Extremes> extremes;  // of each channel
    std::vector<char> made;          // of each channel, whether it is there
  };
  void update_histograms(Room& room, const ValueBlock& block,
                         const ParallelFor& parallel_for);

  int num_bins_;
  double max_growth_;
  // Updates that still belong to the first range; 0: as many as one.
  int first_updates_left_ = 0;
  std::vector<float> mins_;
  std::vector<float> maxs_;
  std::vector<PackedHistogram> histograms_;
};

// One range per channel, all on one grid: with unsigned_symmetric, [0, max]
// only where no channel has a negative value. `percentile` in [50, 100], used
// by Scheme::percentile only. Throws a runtime error where the statistics, or
// those of one channel, are empty, and where the scheme needs histograms and
// none were kept; a value error for a percentile out of range.
AIMETPP_API std::vector<Range> ranges_from_statistics(
    const Statistics& statistics, Scheme scheme, int bitwidth,
    Symmetry symmetry, double percentile,
    const ParallelFor& parallel_for = serial_for);

// One range per channel, of least squared error of those whose scale is a power
// of two; see search_power_of_two_range. Errors as above: it needs histograms.
AIMETPP_API std::vector<Range> power_of_two_ranges(const Statistics& statistics,
                                                   int bitwidth,
                                                   Symmetry symmetry);

}  // namespace aimetpp::quantizer
