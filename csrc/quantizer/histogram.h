// SPDX-License-Identifier: BSD-3-Clause
// Equal-width histogram of one channel, growing with the data.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/macros.h"
#include "quantizer/extremes.h"

namespace aimetpp::quantizer {

inline constexpr int kMaxBins = 1 << 16;

// Equal-width bins over [lo, hi]. lo == hi: only that one value was seen, and
// all is counted in the middle bin.
struct AIMETPP_API Histogram {
  float lo = 0;
  float hi = 0;
  // How far lo and hi may go; values beyond are counted in the end bins. Set
  // by the first data that has a width.
  float lowest = 0;
  float highest = 0;
  std::vector<double> counts;  // empty: nothing was seen

  [[nodiscard]] int num_bins() const { return static_cast<int>(counts.size()); }
  [[nodiscard]] bool is_point() const { return lo == hi; }
  // What the bins span: lo and hi; around a point 0.5 each way, as in
  // torch.histc (more where float32 needs it).
  [[nodiscard]] Extremes outer_edges() const;
  // Left edge of bin `bin`, in 0..num_bins.
  [[nodiscard]] float edge(int bin) const;
  [[nodiscard]] double total() const;
  // Whether a bin of first..last - 1 has a count: quicker than to look at each.
  [[nodiscard]] bool any_filled(std::size_t first, std::size_t last) const;
};

// Makes room in `histogram` for data with these extremes (not empty). A new
// histogram takes their range; an old one is extended, its counts split
// between the new bins in proportion and rounded to whole numbers. max_growth:
// by how many times the first range the range may be extended, half on each
// side.
void make_room(Histogram& histogram, Extremes extremes, int num_bins,
               double max_growth);

// Makes the range that the histogram has by now its first one, for max_growth.
void limit_range(Histogram& histogram, double max_growth);

// A histogram kept in little memory: of less than 2^16 values only the filled
// bins are stored, which for the channels of weights are few.
class PackedHistogram {
 public:
  PackedHistogram() = default;
  explicit PackedHistogram(const Histogram& histogram);

  [[nodiscard]] bool empty() const { return sparse_.empty() && dense_.empty(); }
  [[nodiscard]] Histogram unpacked(int num_bins) const;
  // Into memory that is there already.
  void unpack_into(Histogram& histogram, int num_bins) const;
  // Bytes on the heap.
  [[nodiscard]] std::size_t bytes() const;
  friend bool operator==(const PackedHistogram&,
                         const PackedHistogram&) = default;

 private:
  float lo_ = 0;
  float hi_ = 0;
  float lowest_ = 0;
  float highest_ = 0;
  std::vector<std::uint16_t> sparse_;  // bin, count, bin, count, ...
  std::vector<double> dense_;
};

// The finite extent left when (100 - percentile) % of the values are cut off at
// each end: the outer edges of the bins in which the percentiles fall.
// percentile in [50, 100].
Extremes percentile_extremes(const Histogram& histogram, double percentile);

}  // namespace aimetpp::quantizer
