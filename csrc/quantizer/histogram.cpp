// SPDX-License-Identifier: BSD-3-Clause
#include "quantizer/histogram.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <iterator>
#include <limits>
#include <numeric>

#include "quantizer/bin_counting.h"

namespace aimetpp::quantizer {
namespace {

using Limits = std::numeric_limits<float>;

// Within this, a difference times the number of bins is finite.
constexpr float kLargestEnd = Limits::max() / (4 * kMaxBins);

// Half the width of the bins around a single value: 0.5, and enough bins' worth
// of float32 steps for large values.
float half_width(float value) {
  return std::max(0.5F, std::abs(value) * 0x1p-10F);
}

// A width that float32 cannot divide into bins is no width.
bool too_narrow(float lo, float hi, int num_bins) {
  return hi - lo < Limits::min() * static_cast<float>(num_bins);
}

void set_first_range(Histogram& histogram, float lo, float hi,
                     double max_growth) {
  histogram.lo = lo;
  histogram.hi = hi;
  limit_range(histogram, max_growth);
}

int bin_of(float distance, float bin_width, int num_bins) {
  return std::clamp(static_cast<int>(distance / bin_width), 0, num_bins - 1);
}

// Spreads the counts over the bins of the wider [lo, hi]. An old bin meets two
// new ones at most, since those are not narrower.
void extend(Histogram& histogram, float lo, float hi) {
  const int num_bins = histogram.num_bins();
  const float new_width = (hi - lo) / static_cast<float>(num_bins);
  float old_width = histogram.edge(1) - histogram.edge(0);
  if (!(old_width > 0)) {
    old_width = (histogram.hi - histogram.lo) / static_cast<float>(num_bins);
  }
  std::vector<double> counts(histogram.counts.size(), 0.0);
  for (int bin = 0; bin < num_bins; ++bin) {
    const double count = histogram.counts[static_cast<std::size_t>(bin)];
    if (count == 0) continue;
    const float start = histogram.edge(bin);
    const int first = bin_of(start - lo, new_width, num_bins);
    const float first_end = lo + new_width * static_cast<float>(first + 1);
    const float share = (first_end - start) / old_width;
    const double in_first = std::clamp(
        static_cast<double>(std::rint(share * static_cast<float>(count))), 0.0,
        count);
    const int second = bin_of(start + new_width - lo, new_width, num_bins);
    counts[static_cast<std::size_t>(first)] += in_first;
    counts[static_cast<std::size_t>(second)] += count - in_first;
  }
  histogram.counts = std::move(counts);
  histogram.lo = lo;
  histogram.hi = hi;
}

}  // namespace

Extremes Histogram::outer_edges() const {
  if (!is_point()) return {lo, hi};
  const float half = half_width(lo);
  return {lo - half, lo + half};
}

float Histogram::edge(int bin) const {
  const Extremes outer = outer_edges();
  const float step = (outer.max - outer.min) / static_cast<float>(num_bins());
  return static_cast<float>(bin) * step + outer.min;
}

double Histogram::total() const {
  // Whole numbers: their sum does not depend on the order, and several sums do
  // not wait for each other.
  constexpr std::size_t kSums = 8;
  double sums[kSums] = {};
  std::size_t bin = 0;
  for (; bin + kSums <= counts.size(); bin += kSums) {
    for (std::size_t i = 0; i < kSums; ++i) sums[i] += counts[bin + i];
  }
  double total = std::accumulate(std::begin(sums), std::end(sums), 0.0);
  for (; bin < counts.size(); ++bin) total += counts[bin];
  return total;
}

bool Histogram::any_filled(std::size_t first, std::size_t last) const {
  std::uint64_t bits = 0;
  for (std::size_t bin = first; bin < last; ++bin) {
    bits |= std::bit_cast<std::uint64_t>(counts[bin]);
  }
  return bits != 0;
}

void limit_range(Histogram& histogram, double max_growth) {
  if (histogram.is_point()) return;
  const float first = histogram.edge(0);
  const float last = histogram.edge(histogram.num_bins());
  const float reach = (last - first) * static_cast<float>(max_growth) / 2;
  histogram.lowest = std::max(first - reach, -kLargestEnd);
  histogram.highest = std::min(last + reach, kLargestEnd);
}

void make_room(Histogram& histogram, Extremes extremes, int num_bins,
               double max_growth) {
  const float lo = std::clamp(extremes.min, -kLargestEnd, kLargestEnd);
  float hi = std::clamp(extremes.max, -kLargestEnd, kLargestEnd);
  if (too_narrow(lo, hi, num_bins)) hi = lo;
  if (histogram.counts.empty()) {
    histogram.counts.assign(static_cast<std::size_t>(num_bins), 0.0);
    set_first_range(histogram, lo, hi, max_growth);
  } else if (histogram.is_point()) {
    // One value so far: the first data that differs decides the range.
    const float point = histogram.lo;
    const double count = histogram.total();
    float new_lo = std::min(point, lo);
    float new_hi = std::max(point, hi);
    if (too_narrow(new_lo, new_hi, num_bins)) new_lo = new_hi = point;
    set_first_range(histogram, new_lo, new_hi, max_growth);
    std::fill(histogram.counts.begin(), histogram.counts.end(), 0.0);
    count_values(histogram, &point, 1);
    for (double& bin : histogram.counts) bin *= count;
  } else {
    const float new_lo = std::min(histogram.lo, std::max(lo, histogram.lowest));
    const float new_hi =
        std::max(histogram.hi, std::min(hi, histogram.highest));
    if (new_lo < histogram.lo || new_hi > histogram.hi) {
      extend(histogram, new_lo, new_hi);
    }
  }
}

PackedHistogram::PackedHistogram(const Histogram& histogram)
    : lo_(histogram.lo),
      hi_(histogram.hi),
      lowest_(histogram.lowest),
      highest_(histogram.highest) {
  constexpr double kFew = 1 << 16;
  const std::vector<double>& counts = histogram.counts;
  if (!(histogram.total() < kFew)) {
    dense_ = counts;
    return;
  }
  // An empty bin is overwritten by the next: mistaken guesses of which are
  // empty would cost more than writing all.
  std::vector<std::uint16_t> pairs(2 * counts.size() + 2);
  std::size_t filled = 0;
  constexpr std::size_t kTogether = 16;
  for (std::size_t begin = 0; begin < counts.size(); begin += kTogether) {
    const std::size_t end = std::min(begin + kTogether, counts.size());
    if (!histogram.any_filled(begin, end)) continue;
    for (std::size_t bin = begin; bin < end; ++bin) {
      pairs[2 * filled] = static_cast<std::uint16_t>(bin);
      pairs[2 * filled + 1] = static_cast<std::uint16_t>(counts[bin]);
      filled += static_cast<std::size_t>(counts[bin] != 0);
    }
  }
  sparse_.assign(pairs.begin(),
                 pairs.begin() + static_cast<std::ptrdiff_t>(2 * filled));
}

Histogram PackedHistogram::unpacked(int num_bins) const {
  Histogram histogram;
  unpack_into(histogram, num_bins);
  return histogram;
}

void PackedHistogram::unpack_into(Histogram& histogram, int num_bins) const {
  histogram.lo = lo_;
  histogram.hi = hi_;
  histogram.lowest = lowest_;
  histogram.highest = highest_;
  histogram.counts = dense_;
  if (sparse_.empty()) return;
  histogram.counts.assign(static_cast<std::size_t>(num_bins), 0.0);
  for (std::size_t i = 0; i < sparse_.size(); i += 2) {
    histogram.counts[sparse_[i]] = static_cast<double>(sparse_[i + 1]);
  }
}

std::size_t PackedHistogram::bytes() const {
  return sparse_.capacity() * sizeof(sparse_[0]) +
         dense_.capacity() * sizeof(dense_[0]);
}

Extremes percentile_extremes(const Histogram& histogram, double percentile) {
  if (histogram.is_point()) return {histogram.lo, histogram.lo};
  const int num_bins = histogram.num_bins();
  const double total = histogram.total();
  // float32 as in the reference: its ties at whole numbers are kept so.
  const auto values = static_cast<float>(total);
  const float upper = values * static_cast<float>(percentile) / 100;
  const float lower = values * static_cast<float>(1 - percentile / 100);
  int first = -1;
  int last = -1;
  double counted = 0;
  for (int bin = 0; bin < num_bins && last < 0; ++bin) {
    counted += histogram.counts[static_cast<std::size_t>(bin)];
    if (first < 0 && counted > 0 && counted >= double{lower}) first = bin;
    if (counted > 0 && counted >= double{upper}) last = bin;
  }
  if (last < 0) last = num_bins - 1;
  if (first < 0) first = last;
  return {histogram.edge(first), histogram.edge(last + 1)};
}

}  // namespace aimetpp::quantizer
