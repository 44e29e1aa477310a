// SPDX-License-Identifier: BSD-3-Clause
#include "quantizer/range_search.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "quantizer/bin_counting.h"
#include "quantizer/encoding.h"

namespace aimetpp::quantizer {
namespace {

Histogram histogram_of(const std::vector<float>& data, int num_bins = 512) {
  Histogram histogram;
  Extremes extremes;
  for (const float value : data) extremes.include({value, value});
  make_room(histogram, extremes, num_bins,
            std::numeric_limits<double>::infinity());
  count_values(histogram, data.data(), static_cast<std::int64_t>(data.size()));
  return histogram;
}

std::vector<float> bell(std::size_t count, float scale, float shift) {
  std::mt19937 generator(static_cast<unsigned>(count));
  std::normal_distribution<float> normal(shift, scale);
  std::vector<float> values(count);
  for (float& value : values) value = normal(generator);
  return values;
}

// One candidate: the range [offset, offset + steps] * delta.
struct Pair {
  double delta;
  double offset;
};

// Every bin of one candidate, as the definition says it, in double.
double slow_noise(const Histogram& histogram, Pair pair, double steps,
                  double clipping_weight) {
  const double width =
      (double{histogram.hi} - double{histogram.lo}) / histogram.num_bins();
  double noise = 0;
  for (int bin = 0; bin < histogram.num_bins(); ++bin) {
    const double x = double{histogram.lo} + (bin + 0.5) * width;
    const double q = std::nearbyint(x / pair.delta - pair.offset);
    const bool clipped = q < 0 || q > steps;
    const double y = (std::clamp(q, 0.0, steps) + pair.offset) * pair.delta;
    noise += histogram.counts[static_cast<std::size_t>(bin)] * (y - x) *
             (y - x) * (clipped ? clipping_weight : 1.0);
  }
  return noise;
}

std::vector<Pair> slow_symmetric_pairs(const Histogram& histogram, double steps,
                                       int num_deltas) {
  const double largest =
      std::max(std::abs(double{histogram.lo}), std::abs(double{histogram.hi}));
  std::vector<Pair> pairs;
  for (int k = 1; k <= num_deltas; ++k) {
    pairs.push_back(
        {2 * largest / steps * k / (num_deltas - 1), -std::ceil(steps / 2)});
  }
  return pairs;
}

std::vector<Pair> slow_asymmetric_pairs(const Histogram& histogram,
                                        double steps,
                                        const SearchSettings& settings) {
  const double min = std::min(double{histogram.lo}, 0.0);
  const double max = std::max(double{histogram.hi}, 0.0);
  const double max_delta = (max - min) / steps;
  const double observed = std::nearbyint(min / max_delta);
  std::vector<double> offsets;
  const double intervals = std::min(steps, settings.offsets - 2.0);
  for (int i = 0; i <= intervals; ++i) {
    offsets.push_back(std::nearbyint(-steps + i * steps / intervals));
  }
  offsets.push_back(observed);
  std::vector<Pair> pairs;
  for (int k = 1; k <= settings.asymmetric_deltas; ++k) {
    const double delta = max_delta * k / (settings.asymmetric_deltas - 1);
    for (const double offset : offsets) {
      const double low = std::max(delta * offset, max_delta * observed);
      const double high =
          std::min(delta * (offset + steps), max_delta * (observed + steps));
      if (high - low < 1e-6 * steps) continue;  // the smallest scale
      const double clamped = (high - low) / steps;
      pairs.push_back({clamped, std::nearbyint(low / clamped)});
    }
  }
  return pairs;
}

void expect_least(const Histogram& histogram, const std::vector<Pair>& pairs,
                  Range range, double steps, double clipping_weight) {
  double least = std::numeric_limits<double>::infinity();
  for (const Pair& pair : pairs) {
    least =
        std::min(least, slow_noise(histogram, pair, steps, clipping_weight));
  }
  const double delta = (range.max - range.min) / steps;
  const Pair taken{delta, std::nearbyint(range.min / delta)};
  EXPECT_LE(slow_noise(histogram, taken, steps, clipping_weight),
            least * (1 + 1e-3));
  const bool is_candidate =
      std::any_of(pairs.begin(), pairs.end(), [&taken](const Pair& pair) {
        return std::abs(pair.delta / taken.delta - 1) < 1e-4 &&
               std::abs(pair.offset - taken.offset) < 0.5;
      });
  EXPECT_TRUE(is_candidate) << taken.delta << " " << taken.offset;
}

const std::vector<std::vector<float>> kSamples = {
    bell(3000, 1, 0),   bell(2999, 0.02F, 0.01F), bell(500, 3, 5),
    bell(400, 2, -9),   bell(20, 1, 0),           {-1, 2},
    {0.5F, 0.6F, 0.9F}, bell(5000, 1e4F, 2e3F)};

TEST(SearchRange, SymmetricTakesTheCandidateOfLeastNoise) {
  for (const auto& sample : kSamples) {
    const Histogram histogram = histogram_of(sample);
    for (const int bitwidth : {2, 3, 4, 8, 12}) {
      SCOPED_TRACE(testing::Message() << sample.size() << ", " << bitwidth);
      const double steps = std::exp2(bitwidth) - 1;
      expect_least(histogram, slow_symmetric_pairs(histogram, steps, 101),
                   search_range(histogram, bitwidth, Symmetry::symmetric,
                                kTfEnhancedSearch),
                   steps, 3);
      const double strict_steps = steps - 1;
      expect_least(histogram,
                   slow_symmetric_pairs(histogram, strict_steps, 101),
                   search_range(histogram, bitwidth, Symmetry::strict_symmetric,
                                kTfEnhancedSearch),
                   strict_steps, 3);
    }
  }
}

TEST(SearchRange, AsymmetricTakesTheCandidateOfLeastNoise) {
  for (const auto& sample : kSamples) {
    const Histogram histogram = histogram_of(sample);
    for (const int bitwidth : {2, 4, 8, 12}) {
      SCOPED_TRACE(testing::Message() << sample.size() << ", " << bitwidth);
      const double steps = std::exp2(bitwidth) - 1;
      expect_least(histogram,
                   slow_asymmetric_pairs(histogram, steps, kTfEnhancedSearch),
                   search_range(histogram, bitwidth, Symmetry::asymmetric,
                                kTfEnhancedSearch),
                   steps, 3);
      expect_least(
          histogram, slow_asymmetric_pairs(histogram, steps, kMseSearch),
          search_range(histogram, bitwidth, Symmetry::asymmetric, kMseSearch),
          steps, 1);
    }
  }
}

// Two bins of width 1 with midpoints 0.5 and 1.5; 2 bits, offset 0. All clipped
// values weigh so much that the range must reach 1.5: with deltas of
// 2 / 3 * k / 100, k = 75 gives 0.5, and 0.5 and 1.5 are points of that grid.
TEST(SearchRange, IsTheSameForEveryInstructionSet) {
  for (const auto& sample : kSamples) {
    const Histogram histogram = histogram_of(sample);
    for (const Symmetry symmetry :
         {Symmetry::asymmetric, Symmetry::symmetric}) {
      for (const int bitwidth : {4, 8, 16}) {
        const Range expected = search_range(histogram, bitwidth, symmetry,
                                            kTfEnhancedSearch, Isa::portable);
        for (const Isa isa : supported_isas()) {
          EXPECT_EQ(search_range(histogram, bitwidth, symmetry,
                                 kTfEnhancedSearch, isa),
                    expected);
        }
      }
    }
  }
}

TEST(SearchRange, UnsignedSymmetricByHand) {
  Histogram histogram = histogram_of({0, 2}, 2);
  histogram.counts = {10, 10};
  const Range range = search_range(histogram, 2, Symmetry::unsigned_symmetric,
                                   kTfEnhancedSearch);
  EXPECT_EQ(range.min, 0);
  EXPECT_NEAR(range.max, 1.5, 1e-6);
}

TEST(SearchRange, UnsignedSymmetricWithNegativeValuesIsSymmetric) {
  const Histogram histogram = histogram_of(bell(1000, 1, 0));
  EXPECT_EQ(search_range(histogram, 4, Symmetry::unsigned_symmetric,
                         kTfEnhancedSearch),
            search_range(histogram, 4, Symmetry::symmetric, kTfEnhancedSearch));
}

// An outlier far out costs 4 bits their resolution: the search cuts it, unless
// it is many.
TEST(SearchRange, CutsAnOutlierAtFewBits) {
  std::vector<float> data = bell(10000, 1, 0);
  data[5] = 9;
  const Range range = search_range(histogram_of(data), 4, Symmetry::asymmetric,
                                   kTfEnhancedSearch);
  EXPECT_LT(range.max, 5);
  EXPECT_GT(range.max, 2.5);
  std::fill(data.begin(), data.begin() + 3000, 9.0F);
  EXPECT_GT(search_range(histogram_of(data), 4, Symmetry::asymmetric,
                         kTfEnhancedSearch)
                .max,
            8);
}

TEST(SearchRange, ClippingWeighsLessForMse) {
  const Histogram histogram = histogram_of(bell(20000, 1, 0), 2048);
  for (const int bitwidth : {3, 4, 6}) {
    EXPECT_LT(
        search_range(histogram, bitwidth, Symmetry::symmetric, kMseSearch).max,
        search_range(histogram, bitwidth, Symmetry::symmetric,
                     kTfEnhancedSearch)
            .max);
  }
}

TEST(SearchRange, OfZerosIsTheNarrowestRange) {
  const Histogram histogram = histogram_of({0, 0, 0});
  const Range asymmetric =
      search_range(histogram, 8, Symmetry::asymmetric, kTfEnhancedSearch);
  EXPECT_EQ(asymmetric.min, 0);
  EXPECT_FLOAT_EQ(static_cast<float>(asymmetric.max), 255 * 0x1p-23F);
  const Range symmetric =
      search_range(histogram, 8, Symmetry::symmetric, kTfEnhancedSearch);
  EXPECT_FLOAT_EQ(static_cast<float>(symmetric.min), -128 * 0x1p-23F);
}

TEST(SearchRange, RepresentsAConstantWell) {
  for (const float constant : {0.731F, -12.5F, 4e5F}) {
    const Histogram histogram = histogram_of({constant, constant});
    for (const Symmetry symmetry :
         {Symmetry::asymmetric, Symmetry::symmetric}) {
      const Range range =
          search_range(histogram, 8, symmetry, kTfEnhancedSearch);
      const Encoding encoding = encoding_of_range(range, 8, symmetry);
      const double rounded = std::clamp(
          std::nearbyint(double{constant} / encoding.scale) * encoding.scale,
          encoding.min, encoding.max);
      // Half a symmetric step: no delta tried divides the constant.
      EXPECT_NEAR(rounded, double{constant}, std::abs(constant) * 0.5 / 127);
    }
  }
}

// Powers of two change nothing but the scale, far from the smallest scale.
TEST(SearchRange, ScalesWithTheData) {
  const std::vector<float> sample = bell(2000, 1, 0.2F);
  const Range range = search_range(histogram_of(sample), 6,
                                   Symmetry::asymmetric, kTfEnhancedSearch);
  for (const float factor : {0x1p-10F, 0x1p30F, 0x1p90F}) {
    std::vector<float> scaled = sample;
    for (float& value : scaled) value *= factor;
    const Range got = search_range(histogram_of(scaled), 6,
                                   Symmetry::asymmetric, kTfEnhancedSearch);
    EXPECT_EQ(got.min, range.min * double{factor});
    EXPECT_EQ(got.max, range.max * double{factor});
  }
}

TEST(SearchRange, WorksForEveryBitwidth) {
  const Histogram histogram = histogram_of(bell(2000, 1, 0.2F));
  for (int bitwidth = 2; bitwidth <= 32; ++bitwidth) {
    for (const Symmetry symmetry :
         {Symmetry::asymmetric, Symmetry::symmetric, Symmetry::strict_symmetric,
          Symmetry::unsigned_symmetric}) {
      const Range range =
          search_range(histogram, bitwidth, symmetry, kTfEnhancedSearch);
      EXPECT_LE(range.min, 0);
      EXPECT_GE(range.max, 0);
      EXPECT_LT(range.min, range.max);
      if (bitwidth >= 10) {  // nothing is gained by clipping
        EXPECT_LT(range.min, histogram.lo * 0.9F);
        EXPECT_GT(range.max, histogram.hi * 0.9F);
      }
    }
  }
}

TEST(SearchPowerOfTwoRange, HasTheLeastErrorOfAllPowersOfTwo) {
  for (const int bitwidth : {2, 4, 8, 16}) {
    for (const float shift : {0.0F, 0.7F, -3.0F}) {
      const Histogram histogram = histogram_of(bell(4000, 1.3F, shift), 2048);
      const double steps = std::ldexp(1.0, bitwidth) - 1;
      const double offset = -std::ldexp(1.0, bitwidth - 1);
      const auto noise = [&](int exponent) {
        return slow_noise(histogram, {std::ldexp(1.0, exponent), offset}, steps,
                          1.0);
      };
      int best = -30;
      for (int exponent = best; exponent < 10; ++exponent) {
        if (noise(exponent) < noise(best)) best = exponent;
      }
      const Range range =
          search_power_of_two_range(histogram, bitwidth, Symmetry::symmetric);
      const double delta = std::ldexp(1.0, best);
      EXPECT_EQ(range, (Range{offset * delta, (offset + steps) * delta}))
          << bitwidth << " bits, shift " << shift;
    }
  }
}

TEST(SearchPowerOfTwoRange, ClipsAnOutlierOnlyWhereThatPays) {
  // 7 bits of magnitude: 127 fits the scale 1, 128 needs 2, at the cost of
  // errors of 1 for every odd number.
  std::vector<float> values(100, 1.0F);
  values.push_back(128.0F);
  const auto scale_of = [](const std::vector<float>& data) {
    const Range range = search_power_of_two_range(histogram_of(data, 2048), 8,
                                                  Symmetry::symmetric);
    return (range.max - range.min) / 255;
  };
  EXPECT_EQ(scale_of(values), 1.0);
  values.assign(100, 64.0F);  // on both grids
  values.push_back(200.0F);
  EXPECT_EQ(scale_of(values), 2.0);
}

TEST(SearchPowerOfTwoRange, WithoutSignStartsAtZero) {
  const Histogram histogram = histogram_of({0.0F, 1.0F, 255.0F}, 2048);
  EXPECT_EQ(
      search_power_of_two_range(histogram, 8, Symmetry::unsigned_symmetric),
      (Range{0.0, 255.0}));
  EXPECT_ANY_THROW(
      search_power_of_two_range(histogram, 8, Symmetry::asymmetric));
}

TEST(SearchPowerOfTwoRange, OfZerosIsTheNarrowestThereIs) {
  const Range range = search_power_of_two_range(histogram_of({0.0F, 0.0F}), 8,
                                                Symmetry::symmetric);
  EXPECT_EQ(range, (Range{-128 * 0x1p-23, 127 * 0x1p-23}));
}

}  // namespace
}  // namespace aimetpp::quantizer
