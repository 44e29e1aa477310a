// SPDX-License-Identifier: BSD-3-Clause
#include "quantizer/bin_counting.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <limits>
#include <mutex>
#include <vector>

#include "core/lanes.h"

namespace aimetpp::quantizer {
namespace {

using Limits = std::numeric_limits<float>;

// Finds the bins of values and remembers the values' extremes.
template <typename Lanes>
class BinFinder {
 public:
  static constexpr std::int64_t kWidth = Lanes::kWidth;

  AIMETPP_ALWAYS_INLINE BinFinder(Extremes edges, int num_bins)
      : edges_(edges), scale_(static_cast<float>(num_bins)) {
    const Extremes none;
    lowest_ = Floats{} + none.min;
    highest_ = Floats{} + none.max;
  }

  // Of kWidth values; a NaN's is the first.
  AIMETPP_ALWAYS_INLINE void find(const float* data, std::int32_t* bins) {
    const Floats lo = Floats{} + edges_.min;
    const Floats hi = Floats{} + edges_.max;
    const Floats last = Floats{} + (scale_ - 1);
    Floats x;
    load(x, data);
    Ints pattern;
    std::memcpy(&pattern, &x, sizeof(x));
    pattern &= kWithoutSign;
    largest_ = pattern > largest_ ? pattern : largest_;
    lowest_ = x < lowest_ ? x : lowest_;
    highest_ = x > highest_ ? x : highest_;
    x = x > lo ? x : lo;
    x = x > hi ? hi : x;
    Floats position = (x - lo) * scale_ / (edges_.max - edges_.min);
    position = position > last ? last : position;
    store(__builtin_convertvector(position, Ints), bins);
  }

  AIMETPP_ALWAYS_INLINE std::int32_t bin_of(float value, Scan* scan) const {
    scan->include(Scan::of(value));
    const float x =
        std::min(value > edges_.min ? value : edges_.min, edges_.max);
    return static_cast<std::int32_t>(std::min(
        (x - edges_.min) * scale_ / (edges_.max - edges_.min), scale_ - 1));
  }

  AIMETPP_ALWAYS_INLINE void include_in(Scan* scan) const {
    for (std::int64_t lane = 0; lane < kWidth; ++lane) {
      scan->include({{lowest_[lane], highest_[lane]}, largest_[lane]});
    }
  }

 private:
  using Floats = typename Lanes::Floats;
  using Ints = typename Lanes::Ints;

  Extremes edges_;
  float scale_;
  Floats lowest_;
  Floats highest_;
  Ints largest_{};
};

// bins[i]: the bin of data[i]. Adds the values to `scan`.
struct FindBins {
  template <typename Lanes>
  static AIMETPP_ALWAYS_INLINE void run(const float* data, std::int64_t count,
                                        Extremes edges, int num_bins,
                                        std::int32_t* bins, Scan* scan) {
    BinFinder<Lanes> finder(edges, num_bins);
    std::int64_t done = 0;
    for (; done + Lanes::kWidth <= count; done += Lanes::kWidth) {
      finder.find(data + done, bins + done);
    }
    finder.include_in(scan);
    for (; done < count; ++done) bins[done] = finder.bin_of(data[done], scan);
  }
};

// Tables of counts: equal values in a row then do not wait for each other's
// count to be stored.
constexpr std::size_t kTables = 4;

// From one table to the next. Without the gap, counts of one bin in two tables
// could lie 4 KiB apart, which a processor takes for the same place when it
// looks for a store that a load has to wait for.
std::size_t table_stride(int num_bins) {
  constexpr std::size_t kGap = 16;
  return static_cast<std::size_t>(num_bins) + kGap;
}

// Adds the bins of values to kTables tables in turn, which lie `stride`
// apart, and the values to `scan`. Bins are found some values ahead of being
// counted, so that divisions go on while counts are stored.
struct CountBins {
  template <typename Lanes>
  static AIMETPP_ALWAYS_INLINE void run(const float* data, std::int64_t count,
                                        Extremes edges, int num_bins,
                                        std::uint32_t* counts,
                                        std::size_t stride, Scan* scan) {
    constexpr std::int64_t kWidth = Lanes::kWidth;
    constexpr std::int64_t kAhead = 64;
    std::uint32_t* tables[kTables];
    for (std::size_t t = 0; t < kTables; ++t) {
      tables[t] = counts + t * stride;
    }
    BinFinder<Lanes> finder(edges, num_bins);
    alignas(64) std::int32_t ring[2 * kAhead];
    const std::int64_t in_vectors = count / kWidth * kWidth;
    for (std::int64_t i = 0; i < std::min(kAhead, in_vectors); i += kWidth) {
      finder.find(data + i, ring + i);
    }
    for (std::int64_t i = 0; i < in_vectors; i += kWidth) {
      const std::int64_t ahead = i + kAhead;
      if (ahead < in_vectors) {
        fetch_page_ahead(data + ahead);
        finder.find(data + ahead, ring + ahead % (2 * kAhead));
      }
      const std::int32_t* bins = ring + i % (2 * kAhead);
      for (std::size_t lane = 0; lane < kWidth; ++lane) {
        ++tables[lane % kTables][bins[lane]];
      }
    }
    finder.include_in(scan);
    for (std::int64_t i = in_vectors; i < count; ++i) {
      ++tables[0][finder.bin_of(data[i], scan)];
    }
  }
};

// The tables of one thread.
class Tables {
 public:
  Tables(const Histogram& histogram, Isa isa)
      : count_bins_(lanes_for_isa<CountBins>(isa)),
        edges_(histogram.outer_edges()),
        num_bins_(histogram.num_bins()),
        stride_(table_stride(num_bins_)),
        counts_(kTables * stride_, 0) {}

  void add(const float* data, std::int64_t count, Scan* scan) {
    count_bins_(data, count, edges_, num_bins_, counts_.data(), stride_, scan);
  }
  void add_to(std::vector<double>& counts) const {
    for (std::size_t table = 0; table < kTables; ++table) {
      for (std::size_t bin = 0; bin < counts.size(); ++bin) {
        counts[bin] += static_cast<double>(counts_[table * stride_ + bin]);
      }
    }
  }

 private:
  decltype(lanes_for_isa<CountBins>(Isa{})) count_bins_;
  Extremes edges_;
  int num_bins_;
  std::size_t stride_;
  std::vector<std::uint32_t> counts_;
};

// What a table's counters can hold.
constexpr std::int64_t kMostPerTable =
    std::numeric_limits<std::uint32_t>::max();

// Too few to fill tables for.
void count_few(Histogram& histogram, const float* data, std::int64_t count,
               Isa isa) {
  constexpr std::int64_t kBlock = 1024;
  const auto find_bins = lanes_for_isa<FindBins>(isa);
  const Extremes edges = histogram.outer_edges();
  std::array<std::int32_t, kBlock> bins;
  Scan scan;
  for (std::int64_t done = 0; done < count; done += kBlock) {
    const std::int64_t size = std::min(kBlock, count - done);
    find_bins(data + done, size, edges, histogram.num_bins(), bins.data(),
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

void count_values(Histogram& histogram, const float* data, std::int64_t count,
                  const ParallelFor& parallel_for, Isa isa) {
  constexpr std::int64_t kFewPerBin = 64;
  if (count <= kFewPerBin * histogram.num_bins()) {
    count_few(histogram, data, count, isa);
    return;
  }
  std::mutex mutex;
  parallel_for(count, kGrain, [&](std::int64_t begin, std::int64_t end) {
    Scan scan;
    while (begin < end) {
      Tables tables(histogram, isa);
      const std::int64_t size = std::min(end - begin, kMostPerTable);
      tables.add(data + begin, size, &scan);
      begin += size;
      // Whole numbers: their sum does not depend on the order.
      const std::scoped_lock lock(mutex);
      tables.add_to(histogram.counts);
    }
  });
}

CountedScan scan_and_count(Histogram& histogram, const float* data,
                           std::int64_t count, const ParallelFor& parallel_for,
                           Isa isa) {
  constexpr std::int64_t kBlock = 1 << 13;  // values between two looks
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
    Tables tables(histogram, isa);
    Scan scan;
    while (counting.load(std::memory_order_relaxed) && begin < end) {
      const std::int64_t size = std::min(kBlock, end - begin);
      tables.add(data + begin, size, &scan);
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

}  // namespace aimetpp::quantizer
