// SPDX-License-Identifier: BSD-3-Clause
#include "quantizer/extremes.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <mutex>
#include <utility>

#include "core/error.h"
#include "core/lanes.h"

namespace aimetpp::quantizer {
namespace {

// One Scan per column of a row: low, high, bits have `count` elements.
struct ScanRow {
  template <typename Lanes>
  static AIMETPP_ALWAYS_INLINE void run(const float* row, std::int64_t count,
                                        float* low, float* high,
                                        std::int32_t* bits) {
    constexpr std::int64_t kWidth = Lanes::kWidth;
    std::int64_t done = 0;
    for (; done + kWidth <= count; done += kWidth) {
      typename Lanes::Floats x;
      typename Lanes::Floats lowest;
      typename Lanes::Floats highest;
      typename Lanes::Ints pattern;
      typename Lanes::Ints largest;
      load(x, row + done);
      load(lowest, low + done);
      load(highest, high + done);
      load(largest, bits + done);
      std::memcpy(&pattern, &x, sizeof(x));
      pattern &= kWithoutSign;
      largest = pattern > largest ? pattern : largest;
      lowest = x < lowest ? x : lowest;
      highest = x > highest ? x : highest;
      store(lowest, low + done);
      store(highest, high + done);
      store(largest, bits + done);
    }
    for (; done < count; ++done) {
      Scan scan{{low[done], high[done]}, bits[done]};
      scan.include(Scan::of(row[done]));
      low[done] = scan.extremes.min;
      high[done] = scan.extremes.max;
      bits[done] = scan.bits;
    }
  }
};

// One channel, shared out between the threads. Neither the smallest nor the
// largest value depends on how.
std::vector<Scan> scan_one(const float* data, std::int64_t count,
                           const ParallelFor& parallel_for, Isa isa) {
  Scan total;
  std::mutex mutex;
  parallel_for(count, kGrain, [&](std::int64_t begin, std::int64_t end) {
    const Scan scan = scan_values(data + begin, end - begin, isa);
    const std::scoped_lock lock(mutex);
    total.include(scan);
  });
  return {total};
}

std::vector<Scan> scan_segments(const float* data, std::int64_t outer,
                                std::int64_t num_channels, std::int64_t inner,
                                const ParallelFor& parallel_for, Isa isa) {
  std::vector<Scan> scans(static_cast<std::size_t>(num_channels));
  const std::int64_t grain = kGrain / std::max<std::int64_t>(outer * inner, 1);
  parallel_for(num_channels, std::max<std::int64_t>(grain, 1),
               [&](std::int64_t begin, std::int64_t end) {
                 for (std::int64_t row = 0; row < outer; ++row) {
                   for (std::int64_t c = begin; c < end; ++c) {
                     scans[static_cast<std::size_t>(c)].include(scan_values(
                         data + (row * num_channels + c) * inner, inner, isa));
                   }
                 }
               });
  return scans;
}

// For short segments: whole rows [num_channels * inner] at a time.
std::vector<Scan> scan_rows(const float* data, std::int64_t outer,
                            std::int64_t num_channels, std::int64_t inner,
                            Isa isa) {
  const auto scan_row = lanes_for_isa<ScanRow>(isa);
  const auto width = static_cast<std::size_t>(num_channels * inner);
  const Extremes none;
  std::vector<float> low(width, none.min);
  std::vector<float> high(width, none.max);
  std::vector<std::int32_t> bits(width, 0);
  for (std::int64_t row = 0; row < outer; ++row) {
    scan_row(data + row * num_channels * inner, num_channels * inner,
             low.data(), high.data(), bits.data());
  }
  std::vector<Scan> scans(static_cast<std::size_t>(num_channels));
  for (std::size_t column = 0; column < width; ++column) {
    Scan& scan = scans[column / static_cast<std::size_t>(inner)];
    scan.include({{low[column], high[column]}, bits[column]});
  }
  return scans;
}

std::vector<Extremes> finite_channel_extremes(const float* data,
                                              std::int64_t outer,
                                              std::int64_t num_channels,
                                              std::int64_t inner, Isa isa) {
  std::vector<Extremes> extremes(static_cast<std::size_t>(num_channels));
  for (std::int64_t row = 0; row < outer; ++row) {
    for (Extremes& channel : extremes) {
      channel.include(finite_extremes(data, inner, isa));
      data += inner;
    }
  }
  return extremes;
}

}  // namespace

std::optional<std::vector<Extremes>> channel_extremes_without_nan(
    const float* data, std::int64_t outer, std::int64_t num_channels,
    std::int64_t inner, const ParallelFor& parallel_for, Isa isa) {
  constexpr std::int64_t kShortSegment = 64;
  std::vector<Scan> scans;
  if (num_channels == 1) {
    scans = scan_one(data, outer * inner, parallel_for, isa);
  } else if (outer > 1 && inner > 0 && inner < kShortSegment) {
    scans = scan_rows(data, outer, num_channels, inner, isa);
  } else {
    scans = scan_segments(data, outer, num_channels, inner, parallel_for, isa);
  }
  Scan all;
  for (const Scan& scan : scans) all.include(scan);
  if (all.has_nan()) return std::nullopt;

  std::vector<Extremes> extremes;
  if (!all.all_finite()) {
    extremes = finite_channel_extremes(data, outer, num_channels, inner, isa);
  } else {
    extremes.reserve(scans.size());
    for (const Scan& scan : scans) extremes.push_back(scan.extremes);
  }
  // -0 becomes +0: which of the two was met first must not show.
  for (Extremes& channel : extremes) {
    channel.min += 0.0F;
    channel.max += 0.0F;
  }
  return extremes;
}

std::vector<Extremes> channel_extremes(const float* data, std::int64_t outer,
                                       std::int64_t num_channels,
                                       std::int64_t inner,
                                       const ParallelFor& parallel_for,
                                       Isa isa) {
  auto extremes = channel_extremes_without_nan(data, outer, num_channels, inner,
                                               parallel_for, isa);
  if (!extremes) {
    NanCount nan;
    nan.include(data, outer * num_channels * inner);
    nan.raise();
  }
  return *std::move(extremes);
}

void NanCount::include(const float* data, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) {
    if (!std::isnan(data[i])) continue;
    if (found_ == 0) first_ = seen_ + i;
    ++found_;
  }
  seen_ += count;
}

void NanCount::raise() const {
  raise_value_error("calibration data must not hold NaN, got ", found_, " in ",
                    seen_, " values, the first at flat index ", first_);
}

}  // namespace aimetpp::quantizer
