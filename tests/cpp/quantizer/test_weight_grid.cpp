// SPDX-License-Identifier: BSD-3-Clause
#include "quantizer/weight_grid.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "core/error.h"

namespace aimetpp::quantizer {
namespace {

float step_of(const std::vector<float>& values, int bitwidth) {
  return find_grid_steps(values.data(), 1,
                         static_cast<std::int64_t>(values.size()), bitwidth)[0];
}

std::vector<float> times(float step, const std::vector<int>& multiples) {
  std::vector<float> values;
  for (const int multiple : multiples) {
    values.push_back(step * static_cast<float>(multiple));
  }
  return values;
}

TEST(FindGridSteps, OfMultiplesByHand) {
  const float step = 0.0123F;
  EXPECT_FLOAT_EQ(step_of(times(step, {3, -7, 60, 0, 11, 25}), 8), step);
  EXPECT_FLOAT_EQ(step_of(times(step, {-128, 5, 99, 1}), 8), step);
  // The largest step: all are even.
  EXPECT_FLOAT_EQ(step_of(times(step, {2, -6, 10, 4, 8}), 8), 2 * step);
  EXPECT_FLOAT_EQ(step_of(times(step, {3, -7, 6, 0, 1}), 4), step);
}

TEST(FindGridSteps, NeedsRoomOnTheGrid) {
  const float step = 0.5F;
  EXPECT_EQ(step_of(times(step, {128, 5, 99, 1, 64}), 8), 0);  // 127 at most
  EXPECT_EQ(step_of(times(step, {-8, 3, 5, 7, 1}), 3), 0);
}

// One, two or equal values are on some grid whatever they are.
TEST(FindGridSteps, NeedsEvidence) {
  EXPECT_EQ(step_of({0.3F}, 8), 0);
  EXPECT_EQ(step_of({0.5F, 0.25F}, 8), 0);
  EXPECT_EQ(step_of({0.5F, -0.5F, 0.5F, 0, 0.5F}, 8), 0);
  EXPECT_EQ(step_of({0, 0, 0}, 8), 0);
  EXPECT_EQ(step_of({1, 2, 3, NAN, 5}, 8), 0);
  EXPECT_EQ(step_of({1, 2, 3, INFINITY, 5}, 8), 0);
}

TEST(FindGridSteps, FindsNoneInRandomValues) {
  std::mt19937 generator(1);
  std::normal_distribution<float> normal;
  constexpr std::int64_t kChannels = 20000;
  constexpr std::int64_t kCount = 4;
  std::vector<float> values(kChannels * kCount);
  for (float& value : values) value = normal(generator);
  for (const int bitwidth : {3, 4, 8}) {
    EXPECT_EQ(find_grid_steps(values.data(), kChannels, kCount, bitwidth),
              std::vector<float>(kChannels, 0.0F));
  }
}

// Every random set of multiples is found again, up to a common factor.
TEST(FindGridSteps, FindsWhatWasQuantized) {
  std::mt19937 generator(2);
  std::normal_distribution<float> normal;
  std::vector<float> values(9 * 500);
  std::vector<float> steps(500);
  for (std::size_t channel = 0; channel < steps.size(); ++channel) {
    steps[channel] = std::exp(normal(generator));
    for (std::size_t i = 0; i < 9; ++i) {
      values[channel * 9 + i] =
          std::nearbyint(normal(generator) * 25) * steps[channel];
    }
  }
  const std::vector<float> found = find_grid_steps(values.data(), 500, 9, 8);
  for (std::size_t channel = 0; channel < steps.size(); ++channel) {
    ASSERT_GT(found[channel], 0);
    const float factor = found[channel] / steps[channel];
    EXPECT_NEAR(factor, std::nearbyint(factor), 1e-5);
  }
}

TEST(FindGridSteps, RefusesFineGrids) {
  const float value = 1;
  EXPECT_THROW((void)find_grid_steps(&value, 1, 1, 9), Error);
  EXPECT_THROW((void)find_grid_steps(&value, 1, 1, 1), Error);
}

}  // namespace
}  // namespace aimetpp::quantizer
