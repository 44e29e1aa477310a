// SPDX-License-Identifier: BSD-3-Clause
#include "quantizer/bin_counting.h"
#include "quantizer/histogram.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

namespace aimetpp::quantizer {
namespace {

constexpr double kUnlimited = std::numeric_limits<double>::infinity();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

Extremes extremes_of(const std::vector<float>& data) {
  Extremes extremes;
  for (const float value : data) {
    if (std::isfinite(value)) extremes.include({value, value});
  }
  return extremes;
}

void add(Histogram& histogram, const std::vector<float>& data, int num_bins,
         double max_growth = kUnlimited) {
  make_room(histogram, extremes_of(data), num_bins, max_growth);
  count_values(histogram, data.data(), static_cast<std::int64_t>(data.size()));
}

Histogram histogram_of(const std::vector<float>& data, int num_bins) {
  Histogram histogram;
  add(histogram, data, num_bins);
  return histogram;
}

std::vector<float> random_values(std::size_t count, unsigned seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& value : values) value = normal(generator);
  return values;
}

using Counts = std::vector<double>;

TEST(Histogram, CountsByHand) {
  const Histogram histogram =
      histogram_of({0, 0.5F, 1, 1.5F, 1.9F, 3.99F, 4}, 4);
  EXPECT_EQ(histogram.lo, 0);
  EXPECT_EQ(histogram.hi, 4);
  EXPECT_EQ(histogram.counts, (Counts{2, 3, 0, 2}));  // 4 is in the last bin
  EXPECT_EQ(histogram.total(), 7);
  EXPECT_EQ(histogram.edge(0), 0);
  EXPECT_EQ(histogram.edge(3), 3);
  EXPECT_EQ(histogram.edge(4), 4);
}

// The formula of torch.histc, one value at a time; both ways of counting.
TEST(Histogram, CountsAsTorchHistc) {
  for (const std::size_t count : {1U, 7U, 100U, 5000U, 30001U}) {
    const std::vector<float> data = random_values(count, 3);
    for (const int num_bins : {1, 10, 512, 2048}) {
      const Histogram histogram = histogram_of(data, num_bins);
      if (histogram.is_point()) continue;
      Counts expected(static_cast<std::size_t>(num_bins), 0.0);
      for (const float value : data) {
        const float position = (value - histogram.lo) *
                               static_cast<float>(num_bins) /
                               (histogram.hi - histogram.lo);
        ++expected[static_cast<std::size_t>(
            std::min(static_cast<int>(position), num_bins - 1))];
      }
      EXPECT_EQ(histogram.counts, expected) << count << " " << num_bins;
    }
  }
}

TEST(Histogram, IsTheSameForEveryInstructionSet) {
  for (const std::size_t count : {3U, 1000U, 40001U}) {
    const std::vector<float> data = random_values(count, 8);
    Histogram expected;
    make_room(expected, extremes_of(data), 100, kUnlimited);
    Histogram room = expected;
    const auto size = static_cast<std::int64_t>(count);
    count_values(expected, data.data(), size, serial_for, Isa::portable);
    for (const Isa isa : supported_isas()) {
      Histogram histogram = room;
      count_values(histogram, data.data(), size, serial_for, isa);
      EXPECT_EQ(histogram.counts, expected.counts);
      Histogram in_one_pass = room;
      const CountedScan scan =
          scan_and_count(in_one_pass, data.data(), size, serial_for, isa);
      EXPECT_TRUE(scan.counted);
      EXPECT_EQ(in_one_pass.counts, expected.counts);
      EXPECT_EQ(scan.scan.extremes.min, extremes_of(data).min);
      EXPECT_EQ(scan.scan.extremes.max, extremes_of(data).max);
    }
  }
}

TEST(ScanAndCount, IsInVainWhereTheRangeHasToGrow) {
  for (const float outlier : {9.0F, -9.0F, kInfinity, std::nanf("")}) {
    for (const std::size_t position : {0U, 1500U, 4999U}) {
      Histogram histogram = histogram_of({-1, 1}, 16);
      std::vector<float> data(5000, 0.5F);
      data[4000] = -0.75F;
      data[position] = outlier;
      const CountedScan result = scan_and_count(histogram, data.data(), 5000);
      EXPECT_FALSE(result.counted);
      EXPECT_EQ(histogram.total(), 2);
      EXPECT_EQ(result.scan.all_finite(), std::isfinite(outlier));
      if (!std::isfinite(outlier)) continue;
      EXPECT_EQ(result.scan.extremes.min, std::min(outlier, -0.75F));
      EXPECT_EQ(result.scan.extremes.max, std::max(outlier, 0.5F));
    }
  }
}

TEST(PackedHistogram, UnpacksToWhatWasPacked) {
  for (const std::size_t count : {1U, 20U, 70000U}) {
    const Histogram histogram = histogram_of(random_values(count, 5), 64);
    const Histogram unpacked = PackedHistogram(histogram).unpacked(64);
    EXPECT_EQ(unpacked.counts, histogram.counts);
    EXPECT_EQ(unpacked.lo, histogram.lo);
    EXPECT_EQ(unpacked.hi, histogram.hi);
    EXPECT_EQ(unpacked.lowest, histogram.lowest);
    EXPECT_EQ(unpacked.highest, histogram.highest);
  }
  EXPECT_TRUE(PackedHistogram(Histogram{}).empty());
}

TEST(Histogram, OneValueIsAPointInTheMiddle) {
  const Histogram histogram = histogram_of({3, 3, 3}, 4);
  EXPECT_TRUE(histogram.is_point());
  EXPECT_EQ(histogram.lo, 3);
  EXPECT_EQ(histogram.counts, (Counts{0, 0, 3, 0}));
  EXPECT_EQ(histogram.edge(0), 2.5F);
  EXPECT_EQ(histogram.edge(4), 3.5F);
}

TEST(Histogram, APointTakesTheRangeOfTheFirstOtherData) {
  // A first batch of zeros must not decide the resolution or the limits.
  Histogram histogram = histogram_of({0, 0}, 4);
  add(histogram, {0, 100, 400}, 4, 3);
  EXPECT_EQ(histogram.lo, 0);
  EXPECT_EQ(histogram.hi, 400);
  EXPECT_EQ(histogram.counts, (Counts{3, 1, 0, 1}));
  EXPECT_EQ(histogram.lowest, -600);
  EXPECT_EQ(histogram.highest, 1000);
}

TEST(Histogram, GrowsByRebinning) {
  Histogram histogram = histogram_of({0, 0, 1.5F, 2.5F, 4}, 4);
  EXPECT_EQ(histogram.counts, (Counts{2, 1, 1, 1}));
  add(histogram, {8, 7, 0}, 4);
  EXPECT_EQ(histogram.lo, 0);
  EXPECT_EQ(histogram.hi, 8);
  // Two old bins to a new one, then the three new values.
  EXPECT_EQ(histogram.counts, (Counts{4, 2, 0, 2}));
}

TEST(Histogram, SplitsOldBinsInProportion) {
  // Bins of width 1 over [0, 4], 8 counts in [2, 3]; then bins of width 1.25.
  Histogram histogram = histogram_of({0, 4}, 4);
  histogram.counts = {0, 0, 8, 0};
  make_room(histogram, {0, 5}, 4, kUnlimited);
  // [2, 3] meets [1.25, 2.5] by half of its width and [2.5, 3.75] by half.
  EXPECT_EQ(histogram.counts, (Counts{0, 4, 4, 0}));
}

TEST(Histogram, KeepsTheTotalWhileGrowing) {
  Histogram histogram;
  double total = 0;
  for (unsigned batch = 0; batch < 30; ++batch) {
    std::vector<float> data = random_values(500, batch);
    for (float& value : data) value *= 1.0F + 0.3F * static_cast<float>(batch);
    add(histogram, data, 512, 3);
    total += 500;
    EXPECT_EQ(histogram.total(), total);
    for (const double count : histogram.counts) {
      EXPECT_GE(count, 0);
      EXPECT_EQ(count, std::floor(count));
    }
  }
}

// Growing may move a count by a bin each time, not further.
TEST(Histogram, GrowingStaysCloseToCountingAtOnce) {
  const std::vector<float> first = random_values(4000, 1);
  std::vector<float> second = random_values(4000, 2);
  for (float& value : second) value *= 2.5F;
  Histogram grown = histogram_of(first, 512);
  add(grown, second, 512);
  std::vector<float> all = first;
  all.insert(all.end(), second.begin(), second.end());
  const Histogram at_once = histogram_of(all, 512);
  EXPECT_EQ(grown.lo, at_once.lo);
  EXPECT_EQ(grown.hi, at_once.hi);
  double below_grown = 0;
  double below = 0;
  for (std::size_t bin = 0; bin < 512; ++bin) {
    const double slack = at_once.counts[bin] + 12;
    below_grown += grown.counts[bin];
    below += at_once.counts[bin];
    EXPECT_NEAR(below_grown, below, slack) << bin;
  }
}

TEST(Histogram, GrowthIsLimited) {
  Histogram histogram;
  add(histogram, {0, 2, 4}, 4, 3);  // [0, 4] may become [-6, 10]
  add(histogram, {-100, 50, 1}, 4, 3);
  EXPECT_EQ(histogram.lo, -6);
  EXPECT_EQ(histogram.hi, 10);
  // Bins of width 4 from -6: the far values are in the end bins.
  EXPECT_EQ(histogram.counts, (Counts{1, 2, 2, 1}));
}

TEST(Histogram, InfinitiesAreInTheEndBins) {
  const Histogram histogram =
      histogram_of({0, 1, 4, kInfinity, kInfinity, -kInfinity}, 4);
  EXPECT_EQ(histogram.counts, (Counts{2, 1, 0, 3}));
}

TEST(Histogram, SurvivesVeryLargeAndVerySmallValues) {
  constexpr float kLargest = std::numeric_limits<float>::max();
  Histogram large = histogram_of({-kLargest, 0, kLargest}, 512);
  add(large, {1}, 512);
  EXPECT_EQ(large.total(), 4);
  EXPECT_TRUE(std::isfinite(large.edge(512)));
  Histogram small = histogram_of({0, 1e-44F}, 512);
  add(small, {2e-44F, 0}, 512);
  EXPECT_EQ(small.total(), 4);
  add(small, {1, 0}, 512);
  EXPECT_EQ(small.total(), 6);
  EXPECT_EQ(small.hi, 1);
}

TEST(PercentileExtremes, ByHand) {
  // 100 values, one in each of 100 bins over [0, 99].
  std::vector<float> data(100);
  for (std::size_t i = 0; i < data.size(); ++i) data[i] = static_cast<float>(i);
  const Histogram histogram = histogram_of(data, 100);
  EXPECT_EQ(histogram.counts, Counts(100, 1.0));
  // 10 % of the values at each end: bins 9 and 89, outer edges.
  const Extremes kept = percentile_extremes(histogram, 90);
  EXPECT_FLOAT_EQ(kept.min, 9 * 0.99F);
  EXPECT_FLOAT_EQ(kept.max, 90 * 0.99F);
  const Extremes all = percentile_extremes(histogram, 100);
  EXPECT_FLOAT_EQ(all.min, 0);
  EXPECT_FLOAT_EQ(all.max, 99);
}

TEST(PercentileExtremes, KeepAtLeastThatShareOfTheValues) {
  const std::vector<float> data = random_values(20000, 5);
  const Histogram histogram = histogram_of(data, 2048);
  for (const double percentile : {50.0, 75.0, 90.0, 99.0, 99.9, 99.99, 100.0}) {
    const Extremes kept = percentile_extremes(histogram, percentile);
    const auto share = [&data](auto&& keep) {
      return 100.0 *
             static_cast<double>(
                 std::count_if(data.begin(), data.end(), keep)) /
             static_cast<double>(data.size());
    };
    EXPECT_GE(share([&](float x) { return x <= kept.max + 1e-5F; }),
              percentile - 0.01);
    EXPECT_GE(share([&](float x) { return x >= kept.min - 1e-5F; }),
              percentile - 0.01);
  }
}

TEST(PercentileExtremes, OfAPointAreThePoint) {
  const Extremes kept = percentile_extremes(histogram_of({3, 3}, 16), 60);
  EXPECT_EQ(kept.min, 3);
  EXPECT_EQ(kept.max, 3);
}

}  // namespace
}  // namespace aimetpp::quantizer
