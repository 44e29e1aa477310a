// SPDX-License-Identifier: BSD-3-Clause
#include "quantizer/histogram_sum.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "core/error.h"
#include "quantizer/statistics.h"

namespace aimetpp::quantizer {
namespace {

constexpr double kUnlimited = Statistics::kUnlimitedGrowth;

using Counts = std::vector<double>;

Histogram histogram_of(float lo, float hi, const Counts& counts) {
  Histogram histogram;
  make_room(histogram, {lo, hi}, static_cast<int>(counts.size()), kUnlimited);
  histogram.counts = counts;
  return histogram;
}

Histogram sum(Histogram histogram, const Histogram& other,
              double max_growth = kUnlimited) {
  add_histogram(histogram, other, max_growth);
  return histogram;
}

TEST(HistogramSum, SameRangesAddTheirCounts) {
  const Histogram a = histogram_of(-1, 3, {1, 2, 3, 4});
  EXPECT_EQ(sum(a, histogram_of(-1, 3, {10, 20, 30, 40})).counts,
            (Counts{11, 22, 33, 44}));
  const Histogram point = histogram_of(5, 5, {0, 0, 7, 0});
  EXPECT_EQ(sum(point, point).counts, (Counts{0, 0, 14, 0}));
}

TEST(HistogramSum, NothingAddsNothing) {
  const Histogram a = histogram_of(-1, 3, {1, 2, 3, 4});
  EXPECT_EQ(sum(a, Histogram()).counts, a.counts);
  EXPECT_EQ(sum(Histogram(), a).counts, a.counts);
  EXPECT_EQ(sum(Histogram(), a).hi, 3);
}

// Bins of 2 over [0, 8], then bins of 1 over [2, 6]: two of those fit in one.
TEST(HistogramSum, NarrowerBinsGoWhereTheyLie) {
  const Histogram wide = histogram_of(0, 8, {1, 1, 1, 1});
  const Histogram narrow = histogram_of(2, 6, {10, 20, 30, 40});
  EXPECT_EQ(sum(wide, narrow).counts, (Counts{1, 31, 71, 1}));
}

// The same the other way round: bins of 1 over [2, 6] are extended to bins of
// 2, which then meet bins of their own range.
TEST(HistogramSum, ANarrowerRangeIsExtended) {
  const Histogram narrow = histogram_of(2, 6, {10, 20, 30, 40});
  const Histogram found = sum(narrow, histogram_of(0, 8, {1, 1, 1, 1}));
  EXPECT_EQ(found.lo, 0);
  EXPECT_EQ(found.hi, 8);
  EXPECT_EQ(found.counts, (Counts{1, 31, 71, 1}));
}

// Bins of 2 over bins of 1.5 that may not grow: three quarters of [0, 2] lie in
// the first, and what lies beyond 6 is in the last.
TEST(HistogramSum, WiderBinsAreSplitAndEndsAreFull) {
  Histogram histogram = histogram_of(0, 6, {0, 0, 0, 0});
  histogram.lowest = 0;
  histogram.highest = 6;
  const Histogram found = sum(histogram, histogram_of(0, 8, {8, 0, 0, 8}), 1);
  EXPECT_EQ(found.hi, 6);
  EXPECT_EQ(found.counts, (Counts{6, 2, 0, 8}));
}

TEST(HistogramSum, APointGoesIntoItsBin) {
  const Histogram a = histogram_of(0, 4, {1, 1, 1, 1});
  EXPECT_EQ(sum(a, histogram_of(2.5F, 2.5F, {0, 0, 9, 0})).counts,
            (Counts{1, 1, 10, 1}));
  EXPECT_EQ(sum(a, histogram_of(4, 4, {0, 0, 9, 0})).counts,
            (Counts{1, 1, 1, 10}));
  const Histogram found =
      sum(histogram_of(1, 1, {0, 0, 5, 0}), histogram_of(3, 3, {0, 0, 9, 0}));
  EXPECT_EQ(found.lo, 1);
  EXPECT_EQ(found.hi, 3);
  EXPECT_EQ(found.counts, (Counts{5, 0, 0, 9}));
}

std::vector<float> random_values(std::size_t count, float size, unsigned seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal(0, size);
  std::vector<float> values(count);
  for (float& value : values) value = normal(generator);
  return values;
}

// The cumulated counts, at any value, are those of one pass over all the data
// but for what lies within two bins of it.
TEST(MergedStatistics, AreNearlyThoseOfAllData) {
  const std::vector<float> first = random_values(3000, 1, 1);
  const std::vector<float> second = random_values(2000, 1.7F, 2);
  for (const Scheme scheme : {Scheme::min_max, Scheme::percentile}) {
    Statistics merged = Statistics::for_scheme(1, scheme);
    merged.update(first.data(), 1, 3000);
    Statistics other = Statistics::for_scheme(1, scheme);
    other.update(second.data(), 1, 2000);
    Statistics all = merged;
    all.update(second.data(), 1, 2000);
    merged.merge(other);
    EXPECT_EQ(merged.mins(), all.mins());
    EXPECT_EQ(merged.maxs(), all.maxs());
    if (scheme == Scheme::min_max) continue;
    const Histogram ours = merged.histogram(0), theirs = all.histogram(0);
    EXPECT_EQ(ours.lo, theirs.lo);
    EXPECT_EQ(ours.hi, theirs.hi);
    EXPECT_EQ(ours.total(), 5000);
    double below = 0, expected = 0;
    for (int bin = 0; bin + 1 < ours.num_bins(); ++bin) {
      below += ours.counts[bin];
      expected += theirs.counts[bin];
      const double near = theirs.counts[bin] + theirs.counts[bin + 1] +
                          (bin == 0 ? 0 : theirs.counts[bin - 1]);
      EXPECT_LE(std::abs(below - expected), near + 1) << bin;
    }
  }
}

TEST(MergedStatistics, OfManyChannels) {
  const std::vector<float> data = {1, 2, -5, 6};  // channels {1, 2}, {-5, 6}
  Statistics merged(2, 0, 1);
  merged.update(data.data(), 1, 2);
  Statistics other(2, 0, 1);
  const std::vector<float> more = {0, 3, 2, 2};
  other.update(more.data(), 1, 2);
  merged.merge(other);
  EXPECT_EQ(merged.mins(), (std::vector<float>{0, -5}));
  EXPECT_EQ(merged.maxs(), (std::vector<float>{3, 6}));
  merged.merge(Statistics(2, 0, 1));
  EXPECT_EQ(merged.maxs(), (std::vector<float>{3, 6}));
}

TEST(MergedStatistics, MustHaveOneShape) {
  Statistics statistics(2, 16, 3);
  EXPECT_THROW(statistics.merge(Statistics(1, 16, 3)), Error);
  EXPECT_THROW(statistics.merge(Statistics(2, 8, 3)), Error);
  EXPECT_THROW(statistics.merge(Statistics(2, 16, 4)), Error);
}

}  // namespace
}  // namespace aimetpp::quantizer
