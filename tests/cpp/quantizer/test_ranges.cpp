// SPDX-License-Identifier: BSD-3-Clause
// Ranges of statistics.
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "quantizer/statistics.h"
#include "support/statistics.h"

namespace aimetpp::quantizer {
namespace {

using testing::error_of;
using testing::kInfinity;
using testing::kSchemes;
using testing::random_values;

TEST(RangesFromStatistics, NeedValues) {
  for (const Scheme scheme : kSchemes) {
    Statistics statistics = Statistics::for_scheme(2, scheme);
    const auto ask = [&] {
      (void)ranges_from_statistics(statistics, scheme, 8, Symmetry::symmetric,
                                   100);
    };
    EXPECT_EQ(error_of(ErrorKind::runtime, ask),
              "calibration statistics must hold at least one finite value, got "
              "none");
    const std::vector<float> data = {1, 2, kInfinity, kInfinity};
    statistics.update(data.data(), 1, 2);
    EXPECT_EQ(error_of(ErrorKind::runtime, ask),
              "calibration statistics: channel 1 of 2 must hold at least one "
              "finite value, got none");
  }
}

TEST(RangesFromStatistics, NeedHistogramsForAllButMinMax) {
  Statistics statistics(1, 0, 1);
  const float value = 1;
  statistics.update(&value, 1, 1);
  for (const Scheme scheme :
       {Scheme::tf_enhanced, Scheme::percentile, Scheme::mse}) {
    EXPECT_EQ(error_of(ErrorKind::runtime,
                       [&] {
                         (void)ranges_from_statistics(statistics, scheme, 8,
                                                      Symmetry::symmetric, 100);
                       }),
              "calibration statistics must hold histograms for any scheme but "
              "min_max, got extremes only");
  }
}

TEST(RangesFromStatistics, CheckThePercentile) {
  Statistics statistics = Statistics::for_scheme(1, Scheme::percentile);
  const std::vector<float> data = random_values(100);
  statistics.update(data.data(), 1, 100);
  for (const double percentile : {49.9, 100.1, -1.0, std::nan("")}) {
    const std::string message = error_of(ErrorKind::value, [&] {
      (void)ranges_from_statistics(statistics, Scheme::percentile, 8,
                                   Symmetry::symmetric, percentile);
    });
    EXPECT_EQ(message.find("percentile must be between 50 and 100, got "), 0U);
  }
}

TEST(RangesFromStatistics, MinMaxIsOfTheExtremes) {
  Statistics statistics(2, 0, 1);
  const std::vector<float> data = {-4, 7, 1, 3};
  statistics.update(data.data(), 1, 2);
  EXPECT_EQ(
      ranges_from_statistics(statistics, Scheme::min_max, 4,
                             Symmetry::symmetric, 100),
      (std::vector<Range>{range_from_min_max(-4, 7, 4, Symmetry::symmetric),
                          range_from_min_max(1, 3, 4, Symmetry::symmetric)}));
}

TEST(RangesFromStatistics, ChannelsShareTheGridOfUnsignedSymmetric) {
  const std::vector<float> one_negative = {1, 2, -1, 3};
  const std::vector<float> none_negative = {1, 2, 0, 3};
  for (const Scheme scheme : kSchemes) {
    const auto ranges = [scheme](const std::vector<float>& data) {
      Statistics statistics = Statistics::for_scheme(2, scheme);
      statistics.update(data.data(), 1, 2);
      return ranges_from_statistics(statistics, scheme, 8,
                                    Symmetry::unsigned_symmetric, 100);
    };
    for (const Range& range : ranges(one_negative)) EXPECT_LT(range.min, 0);
    for (const Range& range : ranges(none_negative)) EXPECT_EQ(range.min, 0);
  }
}

TEST(RangesFromStatistics, Percentile100IsMinMax) {
  Statistics statistics = Statistics::for_scheme(2, Scheme::percentile);
  const std::vector<float> data = random_values(2000);
  statistics.update(data.data(), 1, 1000);
  for (const Symmetry symmetry : {Symmetry::asymmetric, Symmetry::symmetric}) {
    EXPECT_EQ(
        ranges_from_statistics(statistics, Scheme::percentile, 8, symmetry,
                               100),
        ranges_from_statistics(statistics, Scheme::min_max, 8, symmetry, 100));
  }
}

TEST(RangesFromStatistics, HigherPercentilesGiveWiderRanges) {
  Statistics statistics = Statistics::for_scheme(1, Scheme::percentile);
  const std::vector<float> data = random_values(5000);
  statistics.update(data.data(), 1, 5000);
  Range narrower{0, 0};
  for (const double percentile : {50.0, 80.0, 95.0, 99.0, 99.9, 100.0}) {
    const Range range = ranges_from_statistics(
        statistics, Scheme::percentile, 8, Symmetry::asymmetric, percentile)[0];
    EXPECT_LE(range.min, narrower.min);
    EXPECT_GT(range.max, narrower.max);
    narrower = range;
  }
}

// randn(10000) with one value of 9, 8 bits: what the reference chooses, within
// what another random sample may differ.
TEST(RangesFromStatistics, AreNearTheReferenceOnABellWithAnOutlier) {
  std::vector<float> data = random_values(10000);
  data[77] = 9;
  const auto ranges = [&data](Scheme scheme, int bitwidth, Symmetry symmetry,
                              double percentile) {
    Statistics statistics = Statistics::for_scheme(1, scheme);
    statistics.update(data.data(), 1, 10000);
    return ranges_from_statistics(statistics, scheme, bitwidth, symmetry,
                                  percentile)[0];
  };
  const Range min_max = ranges(Scheme::min_max, 8, Symmetry::symmetric, 100);
  EXPECT_NEAR(min_max.min, -9.071, 1e-3);
  EXPECT_EQ(min_max.max, 9);
  const Range enhanced =
      ranges(Scheme::tf_enhanced, 8, Symmetry::symmetric, 100);
  EXPECT_NEAR(enhanced.min, -8.945, 0.1);
  EXPECT_NEAR(enhanced.max, 8.875, 0.1);
  const Range four_bits =
      ranges(Scheme::tf_enhanced, 4, Symmetry::asymmetric, 100);
  EXPECT_NEAR(four_bits.min, -3.076, 0.8);
  EXPECT_NEAR(four_bits.max, 3.516, 0.8);
  const Range cut = ranges(Scheme::percentile, 8, Symmetry::asymmetric, 99.9);
  EXPECT_NEAR(cut.min, -3.270, 0.3);
  EXPECT_NEAR(cut.max, 3.052, 0.3);
}

}  // namespace
}  // namespace aimetpp::quantizer
