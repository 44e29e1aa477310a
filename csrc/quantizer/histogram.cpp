// SPDX-License-Identifier: BSD-3-Clause
#include "quantizer/histogram.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>

#include "quantizer/lanes.h"

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

struct Bounds {
  float lo;
  float hi;
};

Bounds outer_edges(const Histogram& histogram) {
  if (!histogram.is_point()) return {histogram.lo, histogram.hi};
  const float half = half_width(histogram.lo);
  return {histogram.lo - half, histogram.lo + half};
}

// A width that float32 cannot divide into bins is no width.
bool too_narrow(float lo, float hi, int num_bins) {
  return hi - lo < Limits::min() * static_cast<float>(num_bins);
}

void set_first_range(Histogram& histogram, float lo, float hi,
                     double max_growth) {
  histogram.lo = lo;
  histogram.hi = hi;
  if (histogram.is_point()) return;
  const float first = histogram.edge(0);
  const float last = histogram.edge(histogram.num_bins());
  const float reach = (last - first) * static_cast<float>(max_growth) / 2;
  histogram.lowest = std::max(first - reach, -kLargestEnd);
  histogram.highest = std::min(last + reach, kLargestEnd);
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

constexpr std::int64_t kBlock = 1024;

// bins[i]: the bin of data[i].
struct FindBins {
  template <typename Lanes>
  static AIMETPP_ALWAYS_INLINE void run(const float* data, std::int64_t count,
                                        Bounds bounds, int num_bins,
                                        std::int32_t* bins) {
    constexpr std::int64_t kWidth = Lanes::kWidth;
    using Floats = typename Lanes::Floats;
    const auto scale = static_cast<float>(num_bins);
    const float last = scale - 1;
    const float width = bounds.hi - bounds.lo;
    const Floats lo = Floats{} + bounds.lo;
    const Floats hi = Floats{} + bounds.hi;
    const Floats last_bin = Floats{} + last;
    std::int64_t done = 0;
    for (; done + kWidth <= count; done += kWidth) {
      Floats x;
      load(x, data + done);
      x = x < lo ? lo : x;
      x = x > hi ? hi : x;
      Floats position = (x - lo) * scale / width;
      position = position > last_bin ? last_bin : position;
      store(__builtin_convertvector(position, typename Lanes::Ints),
            bins + done);
    }
    for (; done < count; ++done) {
      const float x = std::clamp(data[done], bounds.lo, bounds.hi);
      bins[done] = static_cast<std::int32_t>(
          std::min((x - bounds.lo) * scale / width, last));
    }
  }
};

// Several tables in turn: equal values in a row then do not wait for each
// other's count to be stored.
constexpr std::size_t kTables = 4;

void count_many(Histogram& histogram, const float* data, std::int64_t count,
                Bounds bounds) {
  const auto num_bins = static_cast<std::size_t>(histogram.num_bins());
  std::vector<std::uint32_t> tables(kTables * num_bins, 0);
  std::array<std::int32_t, kBlock> bins{};
  for (std::int64_t done = 0; done < count; done += kBlock) {
    const std::int64_t size = std::min(kBlock, count - done);
    run_loop<FindBins>(data + done, size, bounds, histogram.num_bins(),
                       bins.data());
    for (std::size_t i = 0; i < static_cast<std::size_t>(size); ++i) {
      ++tables[(i % kTables) * num_bins + static_cast<std::size_t>(bins[i])];
    }
  }
  for (std::size_t i = 0; i < tables.size(); ++i) {
    histogram.counts[i % num_bins] += static_cast<double>(tables[i]);
  }
}

void count_few(Histogram& histogram, const float* data, std::int64_t count,
               Bounds bounds) {
  std::array<std::int32_t, kBlock> bins{};
  for (std::int64_t done = 0; done < count; done += kBlock) {
    const std::int64_t size = std::min(kBlock, count - done);
    run_loop<FindBins>(data + done, size, bounds, histogram.num_bins(),
                       bins.data());
    for (std::size_t i = 0; i < static_cast<std::size_t>(size); ++i) {
      histogram.counts[static_cast<std::size_t>(bins[i])] += 1;
    }
  }
}

}  // namespace

float Histogram::edge(int bin) const {
  const Bounds bounds = outer_edges(*this);
  const float step = (bounds.hi - bounds.lo) / static_cast<float>(num_bins());
  return static_cast<float>(bin) * step + bounds.lo;
}

double Histogram::total() const {
  return std::accumulate(counts.begin(), counts.end(), 0.0);
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
    const Bounds bounds = outer_edges(histogram);
    std::int32_t bin = 0;
    FindBins::run<Lanes128>(&point, 1, bounds, num_bins, &bin);
    std::fill(histogram.counts.begin(), histogram.counts.end(), 0.0);
    histogram.counts[static_cast<std::size_t>(bin)] = count;
  } else {
    const float new_lo = std::min(histogram.lo, std::max(lo, histogram.lowest));
    const float new_hi =
        std::max(histogram.hi, std::min(hi, histogram.highest));
    if (new_lo < histogram.lo || new_hi > histogram.hi) {
      extend(histogram, new_lo, new_hi);
    }
  }
}

void count_values(Histogram& histogram, const float* data, std::int64_t count) {
  const Bounds bounds = outer_edges(histogram);
  constexpr std::int64_t kFewPerBin = 64;
  if (count <= kFewPerBin * histogram.num_bins()) {
    count_few(histogram, data, count, bounds);
    return;
  }
  constexpr std::int64_t kMost = std::numeric_limits<std::uint32_t>::max();
  for (std::int64_t done = 0; done < count; done += kMost) {
    count_many(histogram, data + done, std::min(kMost, count - done), bounds);
  }
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
