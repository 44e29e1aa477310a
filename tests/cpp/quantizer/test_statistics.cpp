// SPDX-License-Identifier: BSD-3-Clause
#include "quantizer/statistics.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "core/error.h"
#include "support/statistics.h"

namespace aimetpp::quantizer {
namespace {

using testing::error_of;
using testing::kInfinity;
using testing::kSchemes;
using testing::random_values;

void expect_same(const Statistics& one, const Statistics& other) {
  EXPECT_EQ(one.mins(), other.mins());
  EXPECT_EQ(one.maxs(), other.maxs());
  ASSERT_EQ(one.num_bins(), other.num_bins());
  if (one.num_bins() == 0) return;
  for (int channel = 0; channel < one.num_channels(); ++channel) {
    const Histogram histogram = one.histogram(channel);
    EXPECT_EQ(histogram.counts, other.histogram(channel).counts);
    EXPECT_EQ(histogram.lo, other.histogram(channel).lo);
    EXPECT_EQ(histogram.hi, other.histogram(channel).hi);
  }
}

TEST(Statistics, StartEmpty) {
  const Statistics statistics(3, 16, 3);
  EXPECT_TRUE(statistics.empty());
  EXPECT_EQ(statistics.num_channels(), 3);
  EXPECT_EQ(statistics.num_bins(), 16);
  EXPECT_EQ(statistics.mins(), (std::vector<float>(3, kInfinity)));
  EXPECT_EQ(statistics.maxs(), (std::vector<float>(3, -kInfinity)));
}

TEST(Statistics, KeepExtremesOfEachChannel) {
  Statistics statistics(2, 0, 1);
  // [outer 2, channel 2, inner 3]
  const std::vector<float> data = {1, 2, 3, 4, 5, 6, -1, -2, -3, 7, 8, 9};
  statistics.update(data.data(), 2, 3);
  EXPECT_EQ(statistics.mins(), (std::vector<float>{-3, 4}));
  EXPECT_EQ(statistics.maxs(), (std::vector<float>{3, 9}));
  EXPECT_EQ(statistics.num_bins(), 0);
}

TEST(Statistics, BatchesAreAsGoodAsOneUpdateForExtremes) {
  const std::vector<float> data = random_values(6 * 5 * 40);
  Statistics at_once(5, 0, 1);
  at_once.update(data.data(), 6, 40);
  Statistics in_batches(5, 0, 1);
  for (std::size_t batch = 0; batch < 6; ++batch) {
    in_batches.update(data.data() + batch * 5 * 40, 1, 40);
  }
  expect_same(at_once, in_batches);
}

TEST(Statistics, ChannelsAreThoseOfSeparateStatistics) {
  const std::vector<float> data = random_values(4 * 3 * 50);
  Statistics together = Statistics::for_scheme(3, Scheme::tf_enhanced);
  together.update(data.data(), 4, 50);
  for (std::size_t channel = 0; channel < 3; ++channel) {
    std::vector<float> values;
    for (std::size_t row = 0; row < 4; ++row) {
      const auto begin =
          data.begin() + static_cast<std::ptrdiff_t>((row * 3 + channel) * 50);
      values.insert(values.end(), begin, begin + 50);
    }
    Statistics alone = Statistics::for_scheme(1, Scheme::tf_enhanced);
    alone.update(values.data(), 1, 200);
    EXPECT_EQ(alone.histogram(0).counts,
              together.histogram(static_cast<int>(channel)).counts);
    EXPECT_EQ(alone.mins()[0], together.mins()[channel]);
    for (const int bitwidth : {4, 8}) {
      EXPECT_EQ(ranges_from_statistics(alone, Scheme::tf_enhanced, bitwidth,
                                       Symmetry::symmetric, 100)[0],
                ranges_from_statistics(together, Scheme::tf_enhanced, bitwidth,
                                       Symmetry::symmetric, 100)[channel]);
    }
  }
}

// Hands the work out backwards, in ranges of at most `size`.
ParallelFor in_ranges_of(std::int64_t size) {
  return [size](std::int64_t count, std::int64_t, const RangeBody& body) {
    for (std::int64_t end = count; end > 0; end -= size) {
      body(std::max<std::int64_t>(0, end - size), end);
    }
  };
}

TEST(Statistics, DoNotDependOnHowTheWorkIsShared) {
  std::vector<float> data = random_values(3 * 70000);
  data[5] = kInfinity;
  for (const Scheme scheme : kSchemes) {
    for (const int channels : {1, 3}) {
      Statistics alone = Statistics::for_scheme(channels, scheme);
      Statistics shared = Statistics::for_scheme(channels, scheme);
      for (const std::int64_t inner : {20000, 50000, 10000}) {
        alone.update(data.data() + inner, 1, inner);
        shared.update(data.data() + inner, 1, inner, in_ranges_of(777));
      }
      alone.update(data.data(), 1, 10);
      shared.update(data.data(), 1, 10, in_ranges_of(1));
      expect_same(alone, shared);
      EXPECT_EQ(
          ranges_from_statistics(alone, scheme, 8, Symmetry::asymmetric, 99),
          ranges_from_statistics(shared, scheme, 8, Symmetry::asymmetric, 99,
                                 in_ranges_of(1)));
    }
  }
}

// What was counted before the data turned out to need a wider range is not
// counted twice, and values beyond the limits of growth are counted once.
TEST(Statistics, CountEveryValueOnce) {
  Statistics statistics = Statistics::for_scheme(1, Scheme::tf_enhanced);
  double total = 0;
  const std::vector<float> data = random_values(9000);
  for (const float factor : {1.0F, 0.5F, 3.0F, 0.1F, 100.0F, 1.0F, 1000.0F}) {
    std::vector<float> scaled = data;
    for (float& value : scaled) value *= factor;
    statistics.update(scaled.data(), 1, 9000);
    total += 9000;
    EXPECT_EQ(statistics.histogram(0).total(), total) << factor;
  }
}

TEST(Statistics, TensorsOfOneForwardMakeTheFirstRange) {
  // 0.1 .. 1, then 0.1 .. 100 beside it, then 1000 a forward later.
  const std::vector<float> small = {0.1F, 0.5F, 1};
  const std::vector<float> large = {0.1F, 50, 100};
  const std::vector<float> later = {1000};
  const auto highest = [&](int first_updates) {
    Statistics statistics =
        Statistics::for_scheme(1, Scheme::tf_enhanced, first_updates);
    for (const auto& data : {small, large, later}) {
      statistics.update(data.data(), 1, static_cast<std::int64_t>(data.size()));
    }
    EXPECT_EQ(statistics.histogram(0).total(), 7);
    EXPECT_EQ(Statistics::deserialize(statistics.serialize()), statistics);
    return statistics.histogram(0).hi;
  };
  // Growth is half of 3 times the first range on each side.
  EXPECT_FLOAT_EQ(highest(1), 1 + 1.5F * 0.9F);
  EXPECT_FLOAT_EQ(highest(2), 100 + 1.5F * 99.9F);
  EXPECT_FLOAT_EQ(highest(3), 1000);
  EXPECT_FLOAT_EQ(highest(4), 1000);
}

TEST(Statistics, OfManyChannelsWithFewValuesAreSmall) {
  const std::vector<float> data = random_values(1000 * 9);
  Statistics statistics = Statistics::for_scheme(1000, Scheme::mse);
  statistics.update(data.data(), 1, 9);
  // Nine bins at most, of 2048, with 2 bytes each for bin and count.
  EXPECT_LE(statistics.bytes(), 1000 * (9 * 4 + 8 + sizeof(PackedHistogram)));
}

TEST(Statistics, EmptyTensorsChangeNothing) {
  for (const Scheme scheme : kSchemes) {
    Statistics statistics = Statistics::for_scheme(2, scheme);
    statistics.update(nullptr, 0, 5);
    statistics.update(nullptr, 5, 0);
    EXPECT_TRUE(statistics.empty());
    const std::vector<float> data = random_values(20);
    statistics.update(data.data(), 1, 10);
    const Statistics before = statistics;
    statistics.update(nullptr, 0, 0);
    expect_same(statistics, before);
  }
}

TEST(Statistics, NanIsAnErrorAndChangesNothing) {
  for (const Scheme scheme : kSchemes) {
    Statistics statistics = Statistics::for_scheme(1, scheme);
    std::vector<float> data = random_values(100);
    statistics.update(data.data(), 1, 100);
    const Statistics before = statistics;
    data[50] = 1000;
    data[99] = std::nanf("");
    EXPECT_EQ(error_of(ErrorKind::value,
                       [&] { statistics.update(data.data(), 1, 100); }),
              "calibration data must not hold NaN, got 1 in 100 values, the "
              "first at flat index 99");
    expect_same(statistics, before);
  }
}

// [outer, channels, inner] in blocks of one outer index and `width` channels.
ValueBlocks in_blocks(const std::vector<float>& data, std::int64_t channels,
                      std::int64_t inner, std::int64_t width) {
  return [&data, channels, inner, width](const auto& visit) {
    const auto size = static_cast<std::int64_t>(data.size());
    for (std::int64_t at = 0; at < size; at += width * inner) {
      visit({data.data() + at, 1, width, inner, at / inner % channels});
    }
  };
}

TEST(Statistics, DoNotDependOnHowValuesAreCutIntoBlocks) {
  for (const Scheme scheme : kSchemes) {
    for (const std::int64_t channels : {1, 6}) {
      const auto count = static_cast<int>(channels);
      Statistics at_once = Statistics::for_scheme(count, scheme, 2);
      Statistics by_block = Statistics::for_scheme(count, scheme, 2);
      for (const float factor : {1.0F, 3.0F, 20.0F}) {
        std::vector<float> data = random_values(12 * 6 * 50);
        for (float& value : data) value *= factor;
        data[5] = kInfinity;
        const std::int64_t outer = channels == 1 ? 12 * 6 : 12;
        at_once.update(data.data(), outer, 50);
        by_block.update(in_blocks(data, channels, 50, channels == 1 ? 1 : 3));
        expect_same(by_block, at_once);
      }
      EXPECT_EQ(by_block, at_once);
    }
  }
}

TEST(Statistics, OneValueAndInfinitiesInBlocksAreCountedOnce) {
  std::vector<float> data(40, 2.0F);
  data[3] = kInfinity;
  data[33] = -kInfinity;
  for (const Scheme scheme : kSchemes) {
    Statistics at_once = Statistics::for_scheme(1, scheme);
    Statistics by_block = Statistics::for_scheme(1, scheme);
    at_once.update(data.data(), 1, 40);
    by_block.update(in_blocks(data, 1, 10, 1));
    expect_same(by_block, at_once);
  }
}

TEST(Statistics, NanInABlockIsAnErrorAndChangesNothing) {
  std::vector<float> data = random_values(60);
  data[31] = std::nanf("");
  data[59] = std::nanf("");
  Statistics statistics = Statistics::for_scheme(2, Scheme::mse);
  EXPECT_EQ(error_of(ErrorKind::value,
                     [&] { statistics.update(in_blocks(data, 2, 10, 2)); }),
            "calibration data must not hold NaN, got 2 in 60 values, the "
            "first at flat index 31");
  EXPECT_TRUE(statistics.empty());
  statistics.update([](const auto& /*visit*/) {});
  EXPECT_TRUE(statistics.empty());
}

TEST(Statistics, InfinitiesAreLeftOutOfTheRange) {
  for (const Scheme scheme : kSchemes) {
    std::vector<float> data = random_values(1000);
    data[1] = kInfinity;
    data[2] = -kInfinity;
    Statistics statistics = Statistics::for_scheme(1, scheme);
    statistics.update(data.data(), 1, 1000);
    EXPECT_TRUE(std::isfinite(statistics.mins()[0]));
    const Range range = ranges_from_statistics(statistics, scheme, 8,
                                               Symmetry::asymmetric, 100)[0];
    EXPECT_GT(range.min, -6);
    EXPECT_LT(range.max, 6);
    if (scheme != Scheme::min_max) {
      EXPECT_EQ(statistics.histogram(0).total(), 1000);
    }
  }
}

TEST(Statistics, RefuseSizesThatMakeNoSense) {
  EXPECT_THROW(Statistics(0, 0, 1), Error);
  EXPECT_THROW(Statistics(1, -1, 1), Error);
  EXPECT_THROW(Statistics(1, 1 << 20, 1), Error);
  EXPECT_THROW(Statistics(1, 16, 0.5), Error);
  EXPECT_THROW(Statistics(1, 16, std::nan("")), Error);
  Statistics statistics(1, 0, 1);
  const float value = 1;
  EXPECT_THROW(statistics.update(&value, -1, 1), Error);
  EXPECT_THROW(statistics.update(&value, 1, -1), Error);
}

TEST(Statistics, GoThroughNumbersUnchanged) {
  for (const Scheme scheme : kSchemes) {
    Statistics statistics = Statistics::for_scheme(3, scheme);
    expect_same(Statistics::deserialize(statistics.serialize()), statistics);
    const std::vector<float> first = random_values(300, 1);
    const std::vector<float> second = random_values(600, 2);
    statistics.update(first.data(), 1, 100);
    Statistics copy = Statistics::deserialize(statistics.serialize());
    expect_same(copy, statistics);
    EXPECT_EQ(copy.serialize(), statistics.serialize());
    // The growth limits went along.
    copy.update(second.data(), 2, 100);
    statistics.update(second.data(), 2, 100);
    expect_same(copy, statistics);
  }
}

TEST(Statistics, RefuseNumbersThatTheyDidNotWrite) {
  Statistics statistics = Statistics::for_scheme(2, Scheme::tf_enhanced);
  const std::vector<float> data = random_values(20);
  statistics.update(data.data(), 1, 10);
  const std::vector<double> state = statistics.serialize();
  const auto refuse = [](const std::vector<double>& numbers) {
    const std::string message = error_of(ErrorKind::value, [&numbers] {
      (void)Statistics::deserialize(numbers);
    });
    EXPECT_FALSE(message.empty());
  };
  refuse({});
  refuse({1, 1, 0, 1, 0, 1});             // another format
  refuse({2, 1e9, 0, 1});                 // channels that are not there
  refuse({2, 0.5, 0, 1, 0, 1});           // half a channel
  refuse({2, std::nan(""), 0, 1, 0, 1});  // no number of channels
  refuse({2, 1, 4, 3, 0, 1, 1, 0, 1, 0, 1, 4, 9});  // bin 4 of 0..3
  refuse({state.begin(), state.end() - 1});         // too short
  std::vector<double> longer = state;
  longer.push_back(0);
  refuse(longer);
}

}  // namespace
}  // namespace aimetpp::quantizer
