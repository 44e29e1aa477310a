// SPDX-License-Identifier: BSD-3-Clause
#include "quantizer/encoding.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "core/error.h"

namespace aimetpp::quantizer {
namespace {

constexpr std::array kSymmetries = {Symmetry::asymmetric, Symmetry::symmetric,
                                    Symmetry::strict_symmetric,
                                    Symmetry::unsigned_symmetric};

std::vector<Range> sample_ranges() {
  std::mt19937 generator(7);
  std::normal_distribution<double> normal;
  std::vector<Range> ranges = {{0, 0},        {-1, 1},    {0, 6},     {-0.3, 0},
                               {2, 5},        {-5, -2},   {-1e-9, 0}, {0, 1e-9},
                               {-1e30, 1e30}, {1e-40, 1}, {-3, -3},   {7, 7}};
  for (int i = 0; i < 200; ++i) {
    const double a = normal(generator) * std::exp(3 * normal(generator));
    const double b = normal(generator) * std::exp(3 * normal(generator));
    ranges.push_back({std::min(a, b), std::max(a, b)});
  }
  return ranges;
}

TEST(RangeFromMinMax, AsymmetricTakesInZero) {
  EXPECT_EQ(range_from_min_max(-1, 3, 8, Symmetry::asymmetric), (Range{-1, 3}));
  EXPECT_EQ(range_from_min_max(2, 3, 8, Symmetry::asymmetric), (Range{0, 3}));
  EXPECT_EQ(range_from_min_max(-3, -2, 8, Symmetry::asymmetric),
            (Range{-3, 0}));
}

TEST(RangeFromMinMax, SymmetricIsStepsOfOneDelta) {
  // Above decides: delta = 127 / 127.
  EXPECT_EQ(range_from_min_max(-2, 127, 8, Symmetry::symmetric),
            (Range{-128, 127}));
  // Below decides: delta = 128 / 128.
  EXPECT_EQ(range_from_min_max(-128, 2, 8, Symmetry::symmetric),
            (Range{-128, 127}));
  // 4 bits: delta = max(7 / 7, 4 / 8).
  EXPECT_EQ(range_from_min_max(-4, 7, 4, Symmetry::symmetric), (Range{-8, 7}));
}

TEST(RangeFromMinMax, TwoBitSymmetricCountsOneStepMoreAbove) {
  // delta = max(1 / 2, 1 / 2), not 1 / 1.
  EXPECT_EQ(range_from_min_max(-1, 1, 2, Symmetry::symmetric),
            (Range{-1, 0.5}));
}

TEST(RangeFromMinMax, StrictSymmetricHasEqualEnds) {
  EXPECT_EQ(range_from_min_max(-127, 3, 8, Symmetry::strict_symmetric),
            (Range{-127, 127}));
  EXPECT_EQ(range_from_min_max(-1, 3, 2, Symmetry::strict_symmetric),
            (Range{-3, 3}));
}

TEST(RangeFromMinMax, UnsignedSymmetricStartsAtZeroWhereNothingIsNegative) {
  EXPECT_EQ(range_from_min_max(0, 6, 8, Symmetry::unsigned_symmetric),
            (Range{0, 6}));
  EXPECT_EQ(range_from_min_max(2, 6, 8, Symmetry::unsigned_symmetric),
            (Range{0, 6}));
  EXPECT_EQ(range_from_min_max(-4, 7, 4, Symmetry::unsigned_symmetric),
            range_from_min_max(-4, 7, 4, Symmetry::symmetric));
}

TEST(RangeFromMinMax, NarrowRangesAreWidenedToTheSmallestScale) {
  constexpr float kEpsilon = std::numeric_limits<float>::epsilon();
  // An all-zero tensor: 255 steps of 2^-23 (3.04e-5), all above zero.
  const Range zero = range_from_min_max(0, 0, 8, Symmetry::asymmetric);
  EXPECT_EQ(zero, (Range{0, double{255 * kEpsilon}}));
  EXPECT_NEAR(zero.max, 3.04e-5, 1e-7);
  EXPECT_EQ(range_from_min_max(0, 0, 8, Symmetry::symmetric),
            (Range{double{-128 * kEpsilon}, double{127 * kEpsilon}}));
  // 20 bits: 0.01 over the number of steps is below 2^-23.
  const Range fine = range_from_min_max(0, 0, 20, Symmetry::asymmetric);
  EXPECT_NEAR(fine.max, 0.01, 1e-8);
}

TEST(RangeFromMinMax, StaysFinite) {
  const double largest = std::numeric_limits<float>::max();
  const Range range =
      range_from_min_max(-largest, largest, 8, Symmetry::symmetric);
  EXPECT_EQ(range.min, -largest);  // -128 * largest / 127, clamped
  EXPECT_TRUE(std::isfinite(range.max));
}

TEST(RangeFromMinMax, CoversTheValuesItWasGiven) {
  for (const Range& seen : sample_ranges()) {
    for (const Symmetry symmetry : kSymmetries) {
      for (const int bitwidth : {3, 4, 8, 16, 24, 32}) {
        const Range range =
            range_from_min_max(seen.min, seen.max, bitwidth, symmetry);
        const double rounding = 4e-7 * (std::abs(seen.min) + seen.max);
        EXPECT_LE(range.min, seen.min + std::abs(rounding));
        EXPECT_GE(range.max, seen.max - std::abs(rounding));
        EXPECT_LT(range.min, range.max);
      }
    }
  }
}

TEST(RangeFromMinMax, RefusesWhatIsNoRange) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  EXPECT_THROW((void)range_from_min_max(1, 0, 8, Symmetry::symmetric), Error);
  EXPECT_THROW((void)range_from_min_max(nan, 0, 8, Symmetry::symmetric), Error);
  EXPECT_THROW((void)range_from_min_max(0, nan, 8, Symmetry::symmetric), Error);
  EXPECT_THROW((void)range_from_min_max(0, 1, 1, Symmetry::symmetric), Error);
  EXPECT_THROW((void)range_from_min_max(0, 1, 33, Symmetry::symmetric), Error);
}

TEST(GridOfRange, FollowsTheSymmetry) {
  EXPECT_EQ(grid_of_range({-1, 1}, 8, Symmetry::asymmetric),
            (QuantGrid{0, 255}));
  EXPECT_EQ(grid_of_range({-1, 1}, 8, Symmetry::symmetric),
            (QuantGrid{-128, 127}));
  EXPECT_EQ(grid_of_range({-1, 1}, 8, Symmetry::strict_symmetric),
            (QuantGrid{-127, 127}));
  EXPECT_EQ(grid_of_range({0, 1}, 8, Symmetry::unsigned_symmetric),
            (QuantGrid{0, 255}));
  EXPECT_EQ(grid_of_range({-1, 1}, 8, Symmetry::unsigned_symmetric),
            (QuantGrid{-128, 127}));
}

TEST(EncodingOfRange, SymmetricByHand) {
  // set_range(-1, 1) on a symmetric 8-bit grid.
  const Encoding encoding = encoding_of_range({-1, 1}, 8, Symmetry::symmetric);
  EXPECT_EQ(encoding.scale, double{2.0F / 255.0F});
  EXPECT_NEAR(encoding.scale, 0.0078431, 1e-7);
  EXPECT_EQ(encoding.offset, 0);
  EXPECT_NEAR(encoding.min, -1.003922, 1e-6);
  EXPECT_NEAR(encoding.max, 0.996078, 1e-6);
}

TEST(EncodingOfRange, AsymmetricByHand) {
  // scale 4 / 255; -1 / scale = -63.75 rounds to -64.
  const Encoding encoding = encoding_of_range({-1, 3}, 8, Symmetry::asymmetric);
  EXPECT_EQ(encoding.scale, double{4.0F / 255.0F});
  EXPECT_EQ(encoding.offset, -64);
  EXPECT_NEAR(encoding.min, -64 * 4.0 / 255, 1e-6);
  EXPECT_NEAR(encoding.max, 191 * 4.0 / 255, 1e-6);
}

TEST(EncodingOfRange, RoundsTheOffsetHalfToEven) {
  // scale 2; -5 / 2 = -2.5 rounds to -2, -7 / 2 = -3.5 to -4.
  EXPECT_EQ(encoding_of_range({-5, 505}, 8, Symmetry::asymmetric).offset, -2);
  EXPECT_EQ(encoding_of_range({-7, 503}, 8, Symmetry::asymmetric).offset, -4);
}

TEST(EncodingOfRange, ClampsTheOffsetToTheGrid) {
  EXPECT_EQ(encoding_of_range({100, 101}, 8, Symmetry::asymmetric).offset, 0);
  EXPECT_EQ(encoding_of_range({-101, -100}, 8, Symmetry::asymmetric).offset,
            -255);
}

TEST(EncodingOfRange, KeepsTheScaleAboveTheSmallest) {
  EXPECT_EQ(encoding_of_range({0, 0}, 8, Symmetry::asymmetric).scale, 0x1p-23);
  EXPECT_EQ(encoding_of_range({0, 0}, 20, Symmetry::symmetric).scale,
            double{static_cast<float>(0.01 / 1048575)});
}

TEST(EncodingOfRange, StrictAndUnsignedSymmetricHaveOffsetZero) {
  const Encoding strict =
      encoding_of_range({-127, 127}, 8, Symmetry::strict_symmetric);
  EXPECT_EQ(strict, (Encoding{1, 0, -127, 127}));
  const Encoding no_sign =
      encoding_of_range({0, 510}, 8, Symmetry::unsigned_symmetric);
  EXPECT_EQ(no_sign, (Encoding{2, 0, 0, 510}));
}

TEST(EncodingOfRange, CountsThirtyTwoBits) {
  const Encoding encoding =
      encoding_of_range({-1, 1}, 32, Symmetry::asymmetric);
  EXPECT_EQ(encoding.offset, -2147483648LL);  // -2^31 + 0.5, half to even
  EXPECT_NEAR(encoding.scale, 2.0 / 4294967295.0, 1e-20);
  EXPECT_NEAR(encoding.max, 1, 1e-9);
}

TEST(EncodingOfRange, ZeroIsAPointOfEveryGrid) {
  for (const Range& seen : sample_ranges()) {
    for (const Symmetry symmetry : kSymmetries) {
      for (const int bitwidth : {2, 4, 8, 16, 24, 32}) {
        const Range range =
            range_from_min_max(seen.min, seen.max, bitwidth, symmetry);
        const Encoding encoding = encoding_of_range(range, bitwidth, symmetry);
        const QuantGrid grid = grid_of_range(range, bitwidth, symmetry);
        EXPECT_GE(-encoding.offset, grid.qmin);
        EXPECT_LE(-encoding.offset, grid.qmax);
        EXPECT_GT(encoding.scale, 0);
        if (symmetry != Symmetry::asymmetric) {
          EXPECT_EQ(encoding.offset, 0);
        }
      }
    }
  }
}

// The ends move by half a step at most when they are rounded to the grid.
TEST(EncodingOfRange, ReachesTheRangeWithinHalfAStep) {
  for (const Range& seen : sample_ranges()) {
    for (const int bitwidth : {2, 4, 8, 12}) {
      const Range range = range_from_min_max(seen.min, seen.max, bitwidth,
                                             Symmetry::asymmetric);
      const Encoding encoding =
          encoding_of_range(range, bitwidth, Symmetry::asymmetric);
      EXPECT_NEAR(encoding.min, range.min, 0.501 * encoding.scale);
      EXPECT_NEAR(encoding.max, range.max, 0.501 * encoding.scale);
    }
  }
}

// Down to the smallest scale: a range narrower than its grid is widened by that
// much, and so ends anywhere up to twice of it.
TEST(EncodingOfRange, MoreBitsNeverMakeTheScaleCoarser) {
  for (const Range& seen : sample_ranges()) {
    for (const Symmetry symmetry : kSymmetries) {
      double coarser = std::numeric_limits<double>::infinity();
      for (int bitwidth = 3; bitwidth <= 32; ++bitwidth) {
        const Range range =
            range_from_min_max(seen.min, seen.max, bitwidth, symmetry);
        const double scale = encoding_of_range(range, bitwidth, symmetry).scale;
        EXPECT_LE(scale, std::max(coarser, 2.01 * 0x1p-23));
        coarser = scale;
      }
    }
  }
}

TEST(EncodingOfRange, RefusesRangesThatAreNotFinite) {
  const double infinity = std::numeric_limits<double>::infinity();
  EXPECT_THROW((void)encoding_of_range({0, infinity}, 8, Symmetry::symmetric),
               Error);
  EXPECT_THROW((void)encoding_of_range({-infinity, 0}, 8, Symmetry::symmetric),
               Error);
  EXPECT_THROW(
      (void)encoding_of_range({std::nan(""), 0}, 8, Symmetry::symmetric),
      Error);
}

}  // namespace
}  // namespace aimetpp::quantizer
