// SPDX-License-Identifier: BSD-3-Clause
// The CPU loops against one element at a time, over layouts, storages, sizes
// around the vector widths, instruction sets and ways to share the work.
#include "kernels/fake_quant.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "kernels/cpu/storage.h"

namespace aimetpp::kernels {
namespace {

using cpu::BFloat16;
using cpu::Half;

// Hands the work out backwards, in ranges of at most `size`.
ParallelFor in_ranges_of(std::int64_t size) {
  return [size](std::int64_t count, std::int64_t, const RangeBody& body) {
    for (std::int64_t end = count; end > 0; end -= size) {
      body(std::max<std::int64_t>(0, end - size), end);
    }
  };
}

template <typename T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() &&
         std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

// A tensor [outer, channels, inner] with one range per channel, asymmetric,
// 4-bit; about a quarter of x is outside its range.
struct Problem {
  explicit Problem(const ChannelLayout& layout, QuantMode mode,
                   std::uint32_t seed = 0) {
    std::mt19937 random(seed);
    std::uniform_real_distribution<float> value(-2.0f, 2.0f);
    for (std::int64_t i = 0; i < layout.numel(); ++i) {
      x.push_back(value(random));
      grad.push_back(value(random));
    }
    for (std::int64_t c = 0; c < layout.channels; ++c) {
      min.push_back(-1.0f - 0.01f * static_cast<float>(c));
      max.push_back(1.5f + 0.02f * static_cast<float>(c));
    }
    call.mode = mode;
    call.layout = layout;
    call.min = min.data();
    call.max = max.data();
    call.grid = grid.data();
  }
  Problem(const Problem&) = delete;  // call points into it
  Problem& operator=(const Problem&) = delete;

  [[nodiscard]] std::vector<float> transform(Isa isa,
                                             const ParallelFor& parallel) {
    std::vector<float> y(x.size());
    cpu::transform(call, x.data(), y.data(), parallel, isa);
    return y;
  }

  // dx, then dmin, then dmax, in one vector.
  [[nodiscard]] std::vector<float> gradient(Isa isa,
                                            const ParallelFor& parallel) {
    std::vector<float> dx(x.size()), dmin(min.size()), dmax(max.size());
    cpu::gradient(call, grad.data(), x.data(), dx.data(), dmin.data(),
                  dmax.data(), parallel, isa);
    dx.insert(dx.end(), dmin.begin(), dmin.end());
    dx.insert(dx.end(), dmax.begin(), dmax.end());
    return dx;
  }

  [[nodiscard]] std::vector<float> input_gradient(Isa isa,
                                                  const ParallelFor& parallel) {
    std::vector<float> dx(x.size());
    cpu::input_gradient(call, grad.data(), x.data(), dx.data(), parallel, isa);
    return dx;
  }

  std::array<std::int64_t, 2> grid = {0, 15};
  std::vector<float> x, grad, min, max;
  QuantCall call;
};

std::size_t channel_of(const ChannelLayout& layout, std::size_t i) {
  return static_cast<std::size_t>(static_cast<std::int64_t>(i) / layout.inner %
                                  layout.channels);
}

// What Problem::transform and gradient should give: plain loops over double.
struct Expected {
  std::vector<double> y, dx, dmin, dmax;
};

Expected fake_quantize_slowly(const Problem& p) {
  const double steps = 15;
  Expected expected;
  expected.dmin.assign(p.min.size(), 0);
  expected.dmax.assign(p.max.size(), 0);
  for (std::size_t i = 0; i < p.x.size(); ++i) {
    const std::size_t c = channel_of(p.call.layout, i);
    const double scale = (double{p.max[c]} - p.min[c]) / steps;
    const double offset = std::nearbyint(p.min[c] / scale);
    const double ratio = p.x[i] / scale;
    const double q = std::nearbyint(ratio) - offset;
    const double clamped = std::min(std::max(q, 0.0), steps);
    expected.y.push_back((clamped + offset) * scale);
    const bool inside = q == clamped;
    expected.dx.push_back(inside ? p.grad[i] : 0.0);
    const double dscale =
        p.grad[i] * (inside ? std::nearbyint(ratio) - ratio : clamped + offset);
    const double doffset = inside ? 0.0 : p.grad[i] * scale;
    const double through = dscale - doffset * p.min[c] / (scale * scale);
    expected.dmax[c] += through / steps;
    expected.dmin[c] += doffset / scale - through / steps;
  }
  return expected;
}

const std::vector<ChannelLayout>& layouts() {
  static const std::vector<ChannelLayout> all = {
      {1, 1, 1},   {1, 1, 7},    {1, 1, 8},    {1, 1, 257}, {1, 1, 20000},
      {1, 5, 33},  {3, 4, 9},    {2, 3, 5000}, {500, 3, 2}, {7, 5, 1},
      {300, 9, 1}, {3000, 2, 1}, {40, 600, 1}};
  return all;
}

std::string describe(const ChannelLayout& layout) {
  return "layout " + std::to_string(layout.outer) + " " +
         std::to_string(layout.channels) + " " + std::to_string(layout.inner);
}

TEST(FakeQuantKernel, EveryLayoutAgreesWithThePlainLoop) {
  for (const ChannelLayout& layout : layouts()) {
    SCOPED_TRACE(describe(layout));
    Problem problem(layout, QuantMode::fake_quantize);
    const Expected expected = fake_quantize_slowly(problem);
    const auto y = problem.transform(best_isa(), serial_for);
    const auto gradients = problem.gradient(best_isa(), serial_for);
    const std::size_t numel = problem.x.size(), channels = problem.min.size();
    for (std::size_t i = 0; i < numel; ++i) {
      ASSERT_NEAR(y[i], expected.y[i], 1e-5) << i;
      ASSERT_NEAR(gradients[i], expected.dx[i], 1e-6) << i;
    }
    const double tolerance = 1e-6 * (10.0 + static_cast<double>(numel));
    for (std::size_t c = 0; c < channels; ++c) {
      ASSERT_NEAR(gradients[numel + c], expected.dmin[c], tolerance) << c;
      ASSERT_NEAR(gradients[numel + channels + c], expected.dmax[c], tolerance)
          << c;
    }
  }
}

TEST(FakeQuantKernel, BitsDoNotDependOnTheInstructionSetOrTheThreads) {
  for (const ChannelLayout& layout : layouts()) {
    for (const QuantMode mode : {QuantMode::fake_quantize, QuantMode::quantize,
                                 QuantMode::dequantize}) {
      SCOPED_TRACE(describe(layout));
      Problem problem(layout, mode);
      const auto y = problem.transform(Isa::portable, serial_for);
      const auto gradients = problem.gradient(Isa::portable, serial_for);
      for (const Isa isa : supported_isas()) {
        for (const std::int64_t size : {1, 3, 1000}) {
          const ParallelFor parallel = in_ranges_of(size);
          EXPECT_TRUE(same_bits(problem.transform(isa, parallel), y));
          EXPECT_TRUE(same_bits(problem.gradient(isa, parallel), gradients));
          if (mode != QuantMode::fake_quantize) continue;
          std::vector<float> dx = gradients;
          dx.resize(problem.x.size());
          EXPECT_TRUE(same_bits(problem.input_gradient(isa, parallel), dx));
        }
      }
    }
  }
}

TEST(FakeQuantKernel, EveryInstructionSetTakesSpecialValuesAlike) {
  for (const bool swapped : {false, true}) {  // swapped: a negative scale
    Problem problem({1, 1, 333}, QuantMode::fake_quantize);
    problem.x[3] = INFINITY;
    problem.x[20] = -INFINITY;
    problem.x[40] = NAN;
    problem.x[41] = -0.0f;
    problem.x[60] = 1e-42f;
    problem.x[330] = -INFINITY;
    problem.x[331] = NAN;
    if (swapped) std::swap(problem.min, problem.max);
    problem.call.min = problem.min.data();
    problem.call.max = problem.max.data();
    const auto y = problem.transform(Isa::portable, serial_for);
    EXPECT_TRUE(std::isnan(y[40]) && std::isnan(y[331]));
    EXPECT_EQ(y[3] > y[20], true) << "infinities saturate at their own ends";
    const auto dx = problem.input_gradient(Isa::portable, serial_for);
    problem.x[40] = problem.x[331] = 0;  // their terms would hide all others
    const auto gradients = problem.gradient(Isa::portable, serial_for);
    for (const Isa isa : supported_isas()) {
      EXPECT_TRUE(same_bits(problem.gradient(isa, serial_for), gradients));
      problem.x[40] = problem.x[331] = NAN;
      EXPECT_TRUE(same_bits(problem.transform(isa, serial_for), y));
      EXPECT_TRUE(same_bits(problem.input_gradient(isa, serial_for), dx));
      const auto sums = problem.gradient(isa, serial_for);
      EXPECT_TRUE(std::isnan(sums[333]) && std::isnan(sums[334]));
      problem.x[40] = problem.x[331] = 0;
    }
  }
}

TEST(FakeQuantKernel, GradientsOfTinyValuesDoNotDependOnTheInstructionSet) {
  // Each sum is one term of full precision: the ratio of a tiny x to the scale,
  // whose last bit must be the division's.
  std::mt19937 random(5);
  std::uniform_real_distribution<float> mantissa(1.0f, 2.0f);
  for (int trial = 0; trial < 3000; ++trial) {
    Problem problem({1, 1, 16}, QuantMode::fake_quantize);
    std::fill(problem.x.begin(), problem.x.end(), 0.0f);
    problem.x[static_cast<std::size_t>(trial % 16)] =
        std::ldexp(mantissa(random), -trial % 150);
    std::fill(problem.grad.begin(), problem.grad.end(), 1e30f);
    problem.min = {-mantissa(random)};
    problem.max = {mantissa(random)};
    problem.call.min = problem.min.data();
    problem.call.max = problem.max.data();
    const auto gradients = problem.gradient(Isa::portable, serial_for);
    for (const Isa isa : supported_isas()) {
      ASSERT_TRUE(same_bits(problem.gradient(isa, serial_for), gradients))
          << trial;
    }
  }
}

TEST(FakeQuantKernel, WhatIsOutsideEverywhereOrNowhereSumsAlike) {
  for (const float factor : {0.1f, 100.0f}) {
    Problem problem({1, 2, 5000}, QuantMode::fake_quantize);
    for (float& value : problem.x) value *= factor;
    const auto gradients = problem.gradient(Isa::portable, serial_for);
    for (const Isa isa : supported_isas()) {
      EXPECT_TRUE(same_bits(problem.gradient(isa, serial_for), gradients));
    }
  }
}

TEST(FakeQuantKernel, GridsOfManyBitsAndOddScalesDoNotDependOnTheIsa) {
  struct Case {
    std::int64_t qmax;
    float min, max;
  };
  for (const Case& odd : {Case{65535, -3.1f, 2.9f}, Case{(1 << 20) - 1, -1, 1},
                          Case{255, -1e30f, 1e30f}, Case{255, 0, 1e-9f},
                          Case{255, -3e7f, 2e8f}, Case{1, -1, 1}}) {
    Problem problem({1, 1, 1111}, QuantMode::fake_quantize);
    problem.grid[1] = odd.qmax;
    problem.min = {odd.min};
    problem.max = {odd.max};
    problem.call.min = problem.min.data();
    problem.call.max = problem.max.data();
    for (float& value : problem.x) value *= odd.max;
    const auto y = problem.transform(Isa::portable, serial_for);
    const auto gradients = problem.gradient(Isa::portable, serial_for);
    const auto dx = problem.input_gradient(Isa::portable, serial_for);
    for (const Isa isa : supported_isas()) {
      EXPECT_TRUE(same_bits(problem.transform(isa, serial_for), y));
      EXPECT_TRUE(same_bits(problem.gradient(isa, serial_for), gradients));
      EXPECT_TRUE(same_bits(problem.input_gradient(isa, serial_for), dx));
    }
  }
}

TEST(FakeQuantKernel, SixteenBitGradientsAreThoseOfTheirValues) {
  Problem problem({2, 3, 1500}, QuantMode::fake_quantize);
  std::vector<Half> x, grad;
  for (std::size_t i = 0; i < problem.x.size(); ++i) {
    x.push_back(cpu::to_half(problem.x[i]));
    grad.push_back(cpu::to_half(problem.grad[i]));
    problem.x[i] = cpu::to_float(x[i]);
    problem.grad[i] = cpu::to_float(grad[i]);
  }
  const auto expected = problem.gradient(Isa::portable, serial_for);
  problem.call.storage = Storage::float16;
  for (const Isa isa : supported_isas()) {
    std::vector<Half> dx(x.size());
    std::vector<float> dmin(3), dmax(3);
    cpu::gradient(problem.call, grad.data(), x.data(), dx.data(), dmin.data(),
                  dmax.data(), in_ranges_of(2), isa);
    for (std::size_t i = 0; i < x.size(); ++i) {
      ASSERT_EQ(dx[i].bits, cpu::to_half(expected[i]).bits) << i;
    }
    std::vector<Half> alone(x.size());
    cpu::input_gradient(problem.call, grad.data(), x.data(), alone.data(),
                        in_ranges_of(2000), isa);
    EXPECT_EQ(std::memcmp(alone.data(), dx.data(), 2 * dx.size()), 0);
    for (std::size_t c = 0; c < 3; ++c) {
      EXPECT_EQ(dmin[c], expected[x.size() + c]);
      EXPECT_EQ(dmax[c], expected[x.size() + 3 + c]);
    }
  }
}

TEST(FakeQuantKernel, TransformsInPlace) {
  Problem problem({3, 4, 70}, QuantMode::fake_quantize);
  const auto y = problem.transform(best_isa(), serial_for);
  std::vector<float> in_place = problem.x;
  cpu::transform(problem.call, in_place.data(), in_place.data(), serial_for);
  EXPECT_TRUE(same_bits(in_place, y));
}

TEST(FakeQuantKernel, SumsKeepSmallTermsBesideLargeOnes) {
  // One float sum would lose the 1e5 terms of slope 0.25 beside 1e8; what is
  // lost is the 7 that share its lane of a run.
  constexpr std::int64_t kCount = 100001;
  Problem problem({1, 1, kCount}, QuantMode::dequantize);
  std::fill(problem.x.begin(), problem.x.end(), 0.25f);
  std::fill(problem.grad.begin(), problem.grad.end(), 1.0f);
  problem.x[0] = 1e8f;
  problem.min = {0.0f};
  problem.max = {15.0f};
  std::vector<float> dx(problem.x.size());
  std::vector<double> dmin(1), dmax(1), min = {0.0}, max = {15.0};
  problem.call.min = min.data();
  problem.call.max = max.data();
  problem.call.range_storage = Storage::float64;
  problem.call.symmetric = false;
  cpu::gradient(problem.call, problem.grad.data(), problem.x.data(), dx.data(),
                dmin.data(), dmax.data(), serial_for);
  // dL/dscale = sum of x, min = 0 leaves nothing through the offset's scale.
  EXPECT_DOUBLE_EQ(dmax[0], (1e8 + 0.25 * (kCount - 1 - 7)) / 15.0);
}

TEST(FakeQuantKernel, EmptyTensorHasZeroRangeGradients) {
  for (const ChannelLayout& layout :
       {ChannelLayout{1, 1, 0}, ChannelLayout{0, 3, 1}}) {
    Problem problem(layout, QuantMode::fake_quantize);
    EXPECT_TRUE(problem.transform(best_isa(), serial_for).empty());
    const auto gradients = problem.gradient(best_isa(), serial_for);
    EXPECT_EQ(gradients, std::vector<float>(2 * problem.min.size(), 0.0f));
  }
}

TEST(FakeQuantKernel, WideGridsAreComputedInDouble) {
  // 32 bits, scale 2^-20: float could not tell these neighbours apart.
  Problem problem({1, 1, 1}, QuantMode::fake_quantize);
  problem.grid = {-(std::int64_t{1} << 31), (std::int64_t{1} << 31) - 1};
  problem.min = {-2048.0f};
  problem.max = {2048.0f};
  problem.call.storage = Storage::float64;
  problem.call.symmetric = true;
  const double scale = 4096.0 / (std::ldexp(1.0, 32) - 1);
  const double q = 1234567891.0;
  double x = (q + 0.4) * scale;
  double y = 0;
  cpu::transform(problem.call, &x, &y, serial_for);
  EXPECT_EQ(y, q * scale);
  // Stored as float, the same: rounded once, at the end.
  float x32 = static_cast<float>(x), y32 = 0;
  problem.call.storage = Storage::float32;
  cpu::transform(problem.call, &x32, &y32, serial_for);
  EXPECT_EQ(y32, static_cast<float>(std::nearbyint(x32 / scale) * scale));
}

template <typename Stored, typename Store>
void expect_computed_in_float(Storage storage, const Store& store) {
  Problem problem({1, 3, 100}, QuantMode::fake_quantize);
  std::vector<Stored> x, y(problem.x.size()), portable(problem.x.size());
  for (float& value : problem.x) {
    x.push_back(store(value));
    value = cpu::to_float(x.back());
  }
  const auto y32 = problem.transform(Isa::portable, serial_for);
  problem.call.storage = storage;
  cpu::transform(problem.call, x.data(), y.data(), serial_for);
  cpu::transform(problem.call, x.data(), portable.data(), serial_for,
                 Isa::portable);
  for (std::size_t i = 0; i < y.size(); ++i) {
    ASSERT_EQ(y[i].bits, store(y32[i]).bits) << i;
    ASSERT_EQ(portable[i].bits, y[i].bits) << i;
  }
}

TEST(FakeQuantKernel, SixteenBitFloatsAreRoundedOnceAtTheEnd) {
  expect_computed_in_float<Half>(Storage::float16, cpu::to_half);
  expect_computed_in_float<BFloat16>(Storage::bfloat16, cpu::to_bfloat16);
}

}  // namespace
}  // namespace aimetpp::kernels
