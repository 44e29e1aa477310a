// SPDX-License-Identifier: BSD-3-Clause
#include "quantizer/histogram.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <mutex>
#include <numeric>

#include "core/lanes.h"

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

constexpr std::int64_t kBlock = 1024;

// bins[i]: the bin of data[i]; a NaN's is the first. Adds the values to `scan`.
struct FindBins {
  template <typename Lanes>
  static AIMETPP_ALWAYS_INLINE void run(const float* data, std::int64_t count,
                                        Bounds bounds, int num_bins,
                                        std::int32_t* bins, Scan* scan) {
    constexpr std::int64_t kWidth = Lanes::kWidth;
    using Floats = typename Lanes::Floats;
    using Ints = typename Lanes::Ints;
    const auto scale = static_cast<float>(num_bins);
    const float last = scale - 1;
    const float width = bounds.hi - bounds.lo;
    const Floats lo = Floats{} + bounds.lo;
    const Floats hi = Floats{} + bounds.hi;
    const Floats last_bin = Floats{} + last;
    Floats lowest = Floats{} + scan->extremes.min;
    Floats highest = Floats{} + scan->extremes.max;
    Ints largest{};
    std::int64_t done = 0;
    for (; done + kWidth <= count; done += kWidth) {
      Floats x;
      load(x, data + done);
      Ints pattern;
      std::memcpy(&pattern, &x, sizeof(x));
      pattern &= kWithoutSign;
      largest = pattern > largest ? pattern : largest;
      lowest = x < lowest ? x : lowest;
      highest = x > highest ? x : highest;
      x = x > lo ? x : lo;
      x = x > hi ? hi : x;
      Floats position = (x - lo) * scale / width;
      position = position > last_bin ? last_bin : position;
      store(__builtin_convertvector(position, Ints), bins + done);
    }
    for (std::int64_t lane = 0; lane < kWidth; ++lane) {
      scan->include({{lowest[lane], highest[lane]}, largest[lane]});
    }
    for (; done < count; ++done) {
      scan->include(Scan::of(data[done]));
      const float x =
          std::min(data[done] > bounds.lo ? data[done] : bounds.lo, bounds.hi);
      bins[done] = static_cast<std::int32_t>(
          std::min((x - bounds.lo) * scale / width, last));
    }
  }
};

// Counts of one thread. Several tables in turn: equal values in a row then do
// not wait for each other's count to be stored.
class Tables {
 public:
  explicit Tables(int num_bins)
      : num_bins_(static_cast<std::size_t>(num_bins)),
        counts_(kTables * num_bins_, 0) {}

  void add(const std::int32_t* bins, std::int64_t count) {
    const auto size = static_cast<std::size_t>(count);
    std::uint32_t* table[kTables];
    for (std::size_t t = 0; t < kTables; ++t) {
      table[t] = counts_.data() + t * num_bins_;
    }
    std::size_t i = 0;
    for (; i + kTables <= size; i += kTables) {
      for (std::size_t t = 0; t < kTables; ++t) ++table[t][bins[i + t]];
    }
    for (; i < size; ++i) ++table[0][bins[i]];
  }
  void add_to(std::vector<double>& counts) const {
    for (std::size_t i = 0; i < counts_.size(); ++i) {
      counts[i % num_bins_] += static_cast<double>(counts_[i]);
    }
  }

 private:
  static constexpr std::size_t kTables = 4;
  std::size_t num_bins_;
  std::vector<std::uint32_t> counts_;
};

// What a table's counters can hold.
constexpr std::int64_t kMostPerTable =
    std::numeric_limits<std::uint32_t>::max();

// Too few to fill tables for.
void count_few(Histogram& histogram, const float* data, std::int64_t count,
               Isa isa) {
  const auto find_bins = lanes_for_isa<FindBins>(isa);
  const Bounds bounds = outer_edges(histogram);
  std::array<std::int32_t, kBlock> bins;
  Scan scan;
  for (std::int64_t done = 0; done < count; done += kBlock) {
    const std::int64_t size = std::min(kBlock, count - done);
    find_bins(data + done, size, bounds, histogram.num_bins(), bins.data(),
              &scan);
    for (std::size_t i = 0; i < static_cast<std::size_t>(size); ++i) {
      histogram.counts[static_cast<std::size_t>(bins[i])] += 1;
    }
  }
}

// The extremes with which make_room leaves the histogram as it is.
Extremes room_of(const Histogram& histogram) {
  Extremes room{histogram.lo, histogram.hi};
  if (histogram.lo <= histogram.lowest) room.min = -Limits::infinity();
  if (histogram.hi >= histogram.highest) room.max = Limits::infinity();
  return room;
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
    const Bounds bounds = outer_edges(histogram);
    std::int32_t bin = 0;
    Scan scan;
    FindBins::run<Lanes128>(&point, 1, bounds, num_bins, &bin, &scan);
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

void count_values(Histogram& histogram, const float* data, std::int64_t count,
                  const ParallelFor& parallel_for, Isa isa) {
  constexpr std::int64_t kFewPerBin = 64;
  if (count <= kFewPerBin * histogram.num_bins()) {
    count_few(histogram, data, count, isa);
    return;
  }
  const auto find_bins = lanes_for_isa<FindBins>(isa);
  const Bounds bounds = outer_edges(histogram);
  std::mutex mutex;
  parallel_for(count, kGrain, [&](std::int64_t begin, std::int64_t end) {
    std::array<std::int32_t, kBlock> bins;
    Scan scan;
    while (begin < end) {
      Tables tables(histogram.num_bins());
      const std::int64_t stop = std::min(end, begin + kMostPerTable);
      for (; begin < stop; begin += kBlock) {
        const std::int64_t size = std::min(kBlock, stop - begin);
        find_bins(data + begin, size, bounds, histogram.num_bins(), bins.data(),
                  &scan);
        tables.add(bins.data(), size);
      }
      begin = stop;
      // Whole numbers: their sum does not depend on the order.
      const std::scoped_lock lock(mutex);
      tables.add_to(histogram.counts);
    }
  });
}

CountedScan scan_and_count(Histogram& histogram, const float* data,
                           std::int64_t count, const ParallelFor& parallel_for,
                           Isa isa) {
  const auto find_bins = lanes_for_isa<FindBins>(isa);
  const Bounds bounds = outer_edges(histogram);
  const Extremes room = room_of(histogram);
  const auto fits = [&room](const Scan& scan) {
    return scan.all_finite() && scan.extremes.min >= room.min &&
           scan.extremes.max <= room.max;
  };
  std::vector<double> counts(histogram.counts.size(), 0.0);
  CountedScan result{{}, !histogram.is_point() && count < kMostPerTable};
  std::atomic<bool> counting = result.counted;
  std::mutex mutex;
  parallel_for(count, kGrain, [&](std::int64_t begin, std::int64_t end) {
    std::array<std::int32_t, kBlock> bins;
    Tables tables(histogram.num_bins());
    Scan scan;
    while (counting.load(std::memory_order_relaxed) && begin < end) {
      const std::int64_t size = std::min(kBlock, end - begin);
      find_bins(data + begin, size, bounds, histogram.num_bins(), bins.data(),
                &scan);
      tables.add(bins.data(), size);
      if (!fits(scan)) counting.store(false, std::memory_order_relaxed);
      begin += size;
    }
    scan.include(scan_values(data + begin, end - begin, isa));
    const std::scoped_lock lock(mutex);
    result.scan.include(scan);
    tables.add_to(counts);
  });
  result.counted = counting;
  if (!result.counted) return result;
  for (std::size_t bin = 0; bin < counts.size(); ++bin) {
    histogram.counts[bin] += counts[bin];
  }
  return result;
}

PackedHistogram::PackedHistogram(const Histogram& histogram)
    : lo_(histogram.lo),
      hi_(histogram.hi),
      lowest_(histogram.lowest),
      highest_(histogram.highest) {
  constexpr double kFew = 1 << 16;
  if (!(histogram.total() < kFew)) {
    dense_ = histogram.counts;
    return;
  }
  const auto filled = histogram.counts.size() -
                      static_cast<std::size_t>(std::count(
                          histogram.counts.begin(), histogram.counts.end(), 0));
  sparse_.reserve(2 * filled);
  for (std::size_t bin = 0; bin < histogram.counts.size(); ++bin) {
    if (histogram.counts[bin] == 0) continue;
    sparse_.push_back(static_cast<std::uint16_t>(bin));
    sparse_.push_back(static_cast<std::uint16_t>(histogram.counts[bin]));
  }
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
