// SPDX-License-Identifier: BSD-3-Clause
#include "quantizer/extremes.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/lanes.h"

namespace aimetpp::quantizer {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

std::vector<float> random_values(std::int64_t count) {
  std::mt19937 generator(static_cast<unsigned>(count));
  std::normal_distribution<float> normal;
  std::vector<float> values(static_cast<std::size_t>(count));
  for (float& value : values) value = normal(generator);
  return values;
}

struct Shape {
  std::int64_t outer;
  std::int64_t channels;
  std::int64_t inner;
};

// Three loops and nothing else.
std::vector<Extremes> slow_extremes(const std::vector<float>& data,
                                    Shape shape) {
  std::vector<Extremes> extremes(static_cast<std::size_t>(shape.channels));
  for (std::int64_t o = 0; o < shape.outer; ++o) {
    for (std::int64_t c = 0; c < shape.channels; ++c) {
      for (std::int64_t i = 0; i < shape.inner; ++i) {
        const float value = data[static_cast<std::size_t>(
            (o * shape.channels + c) * shape.inner + i)];
        if (std::isinf(value)) continue;
        Extremes& channel = extremes[static_cast<std::size_t>(c)];
        channel.min = std::min(channel.min, value);
        channel.max = std::max(channel.max, value);
      }
    }
  }
  return extremes;
}

void expect_equal_to_slow(const std::vector<float>& data, Shape shape) {
  const std::vector<Extremes> expected = slow_extremes(data, shape);
  const std::vector<Extremes> got =
      channel_extremes(data.data(), shape.outer, shape.channels, shape.inner);
  ASSERT_EQ(got.size(), expected.size());
  for (std::size_t channel = 0; channel < got.size(); ++channel) {
    EXPECT_EQ(got[channel].min, expected[channel].min) << channel;
    EXPECT_EQ(got[channel].max, expected[channel].max) << channel;
  }
}

// Sizes on both sides of the vector widths and of the choice of loop.
const std::vector<Shape> kShapes = {
    {1, 1, 1},  {1, 1, 15}, {1, 1, 16}, {1, 1, 17},  {1, 1, 1000},
    {1, 5, 27}, {1, 7, 1},  {3, 4, 1},  {5, 3, 9},   {2, 6, 63},
    {2, 6, 64}, {2, 6, 65}, {9, 1, 33}, {40, 13, 2}, {3, 2, 200}};

TEST(ChannelExtremes, AreThoseOfThreeLoops) {
  for (const Shape& shape : kShapes) {
    SCOPED_TRACE(testing::Message() << shape.outer << " x " << shape.channels
                                    << " x " << shape.inner);
    expect_equal_to_slow(
        random_values(shape.outer * shape.channels * shape.inner), shape);
  }
}

TEST(ChannelExtremes, FindTheExtremeAtEveryPosition) {
  for (std::size_t position = 0; position < 70; ++position) {
    std::vector<float> data(70, 0.5F);
    data[position] = 2;
    EXPECT_EQ(channel_extremes(data.data(), 1, 1, 70)[0].max, 2) << position;
    data[position] = -2;
    EXPECT_EQ(channel_extremes(data.data(), 1, 1, 70)[0].min, -2) << position;
  }
}

TEST(ChannelExtremes, LeaveInfinitiesOut) {
  for (const Shape& shape : kShapes) {
    std::vector<float> data =
        random_values(shape.outer * shape.channels * shape.inner);
    data.front() = kInfinity;
    data.back() = -kInfinity;
    expect_equal_to_slow(data, shape);
  }
}

TEST(ChannelExtremes, AreEmptyWithoutFiniteValues) {
  const std::vector<float> data = {kInfinity, -kInfinity, 1, 2};
  const std::vector<Extremes> extremes = channel_extremes(data.data(), 1, 2, 2);
  EXPECT_TRUE(extremes[0].empty());
  EXPECT_FALSE(extremes[1].empty());
  EXPECT_TRUE(channel_extremes(data.data(), 0, 1, 2)[0].empty());
  EXPECT_TRUE(channel_extremes(data.data(), 2, 2, 0)[0].empty());
}

TEST(ChannelExtremes, HaveNoNegativeZero) {
  for (const auto& data :
       {std::vector<float>{-0.0F, 0.0F}, std::vector<float>{0.0F, -0.0F},
        std::vector<float>(33, -0.0F)}) {
    const Extremes extremes = channel_extremes(
        data.data(), 1, 1, static_cast<std::int64_t>(data.size()))[0];
    EXPECT_FALSE(std::signbit(extremes.min));
    EXPECT_FALSE(std::signbit(extremes.max));
  }
}

TEST(ChannelExtremes, RefuseNanAtEveryPosition) {
  for (const float nan : {std::nanf(""), -std::nanf("")}) {
    for (std::size_t position = 0; position < 40; ++position) {
      std::vector<float> data(40, 1.0F);
      data[position] = nan;
      EXPECT_THROW(channel_extremes(data.data(), 1, 1, 40), Error);
      EXPECT_THROW(channel_extremes(data.data(), 2, 20, 1), Error);
      EXPECT_THROW(channel_extremes(data.data(), 1, 8, 5), Error);
    }
  }
}

TEST(ChannelExtremes, SayHowManyNanAndWhere) {
  std::vector<float> data(100, 1.0F);
  data[31] = data[64] = std::nanf("");
  data[2] = kInfinity;
  try {
    channel_extremes(data.data(), 1, 1, 100);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::value);
    EXPECT_EQ(std::string(error.what()),
              "calibration data must not hold NaN, got 2 in 100 values, the "
              "first at flat index 31");
  }
}

}  // namespace
}  // namespace aimetpp::quantizer
