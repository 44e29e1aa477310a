// SPDX-License-Identifier: BSD-3-Clause
// Rounding to narrow formats against a search through all of a format's
// numbers.
#include "kernels/float_quant.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "kernels/cpu/storage.h"

namespace aimetpp::kernels {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

const std::vector<FloatFormat>& formats() {
  static const std::vector<FloatFormat> all = {
      {5, 10},      {8, 7},       {5, 2},      {4, 3},
      {3, 2, true}, {2, 3, true}, {2, 1, true}};
  return all;
}

std::string describe(const FloatFormat& format) {
  return "e" + std::to_string(format.exponent_bits) + "m" +
         std::to_string(format.mantissa_bits) +
         (format.saturates ? ", saturating" : "");
}

// All numbers from 0 to the largest, in order: number i has i as its bits.
std::vector<double> numbers_of(const FloatFormat& format) {
  const int bias = (1 << (format.exponent_bits - 1)) - 1;
  const int mantissas = 1 << format.mantissa_bits;
  std::vector<double> numbers;
  for (int exponent = 0; exponent < 1 << format.exponent_bits; ++exponent) {
    for (int mantissa = 0; mantissa < mantissas; ++mantissa) {
      const double significand =
          (exponent == 0 ? 0 : 1) + static_cast<double>(mantissa) / mantissas;
      const double number =
          std::ldexp(significand, std::max(exponent, 1) - bias);
      if (number <= largest_value(format)) numbers.push_back(number);
    }
  }
  return numbers;
}

// The nearest number, the one with even bits at a tie.
double round_slowly(double x, const FloatFormat& format,
                    const std::vector<double>& numbers) {
  if (std::isnan(x)) return x;
  const double magnitude = std::abs(x);
  const double overflow = format.saturates            ? numbers.back()
                          : format.exponent_bits == 4 ? kNan
                                                      : kInf;
  // The number after the last one decides whether the last is the nearest.
  const double step = numbers.back() - numbers[numbers.size() - 2];
  std::vector<double> all = numbers;
  all.push_back(numbers.back() + step);
  double best = overflow;
  if (magnitude < all.back()) {
    const auto above = std::lower_bound(all.begin(), all.end(), magnitude);
    auto i = static_cast<std::size_t>(above - all.begin());
    if (all[i] != magnitude) {
      const double down = magnitude - all[i - 1];
      const double up = all[i] - magnitude;
      if (down < up || (down == up && (i - 1) % 2 == 0)) --i;
    }
    best = i == all.size() - 1 ? overflow : all[i];
  }
  return std::copysign(best, x);
}

std::vector<float> awkward_values(const FloatFormat& format,
                                  const std::vector<double>& numbers) {
  std::vector<float> values = {0.0f, -0.0f, kInf, -kInf, kNan, 1e-45f, 3.4e38f};
  std::mt19937 random(0);
  const std::size_t stride = std::max<std::size_t>(1, numbers.size() / 400);
  for (std::size_t i = 0; i + 1 < numbers.size(); i += stride) {
    const auto tie = static_cast<float>((numbers[i] + numbers[i + 1]) / 2);
    for (const float x :
         {static_cast<float>(numbers[i]), tie, std::nextafter(tie, kInf),
          std::nextafter(tie, 0.0f)}) {
      values.push_back(x);
      values.push_back(-x);
    }
  }
  const auto largest = static_cast<float>(largest_value(format));
  const float step = largest - static_cast<float>(numbers[numbers.size() - 2]);
  for (const float x : {largest, largest + step / 2, largest + step}) {
    values.push_back(std::nextafter(x, 0.0f));
    values.push_back(x);
    values.push_back(-std::nextafter(x, kInf));
  }
  for (int i = 0; i < 2000; ++i) {
    values.push_back(
        std::bit_cast<float>(static_cast<std::uint32_t>(random())));
  }
  return values;
}

template <typename T>
bool same_number(T a, T b) {
  return (std::isnan(a) && std::isnan(b)) ||
         std::memcmp(&a, &b, sizeof(a)) == 0;
}

TEST(FloatFormats, LargestByHand) {
  EXPECT_EQ(largest_value({5, 10}), 65504);
  EXPECT_EQ(largest_value({8, 7}), std::ldexp(255.0, 120));
  EXPECT_EQ(largest_value({5, 2}), 57344);
  EXPECT_EQ(largest_value({4, 3}), 448);
  EXPECT_EQ(largest_value({3, 2}), 28);
  EXPECT_EQ(largest_value({2, 3}), 7.5);
  EXPECT_EQ(largest_value({2, 1}), 6);
  EXPECT_EQ(numbers_of({2, 1}),
            (std::vector<double>{0, 0.5, 1, 1.5, 2, 3, 4, 6}));
}

TEST(FloatQuantize, IsTheNearestNumberOnEveryInstructionSet) {
  for (FloatFormat format : formats()) {
    const std::vector<double> numbers = numbers_of(format);
    const std::vector<float> x = awkward_values(format, numbers);
    for (const bool saturates : {true, format.saturates}) {
      format.saturates = saturates;
      SCOPED_TRACE(describe(format));
      FloatCall call{format,
                     Storage::float32,
                     {1, 1, static_cast<std::int64_t>(x.size())}};
      for (const Isa isa : supported_isas()) {
        std::vector<float> y(x.size());
        cpu::float_quantize(call, x.data(), y.data(), serial_for, isa);
        for (std::size_t i = 0; i < x.size(); ++i) {
          const auto expected =
              static_cast<float>(round_slowly(x[i], format, numbers));
          ASSERT_TRUE(same_number(y[i], expected))
              << x[i] << ": " << y[i] << ", expected " << expected;
        }
      }
    }
  }
}

TEST(FloatQuantize, Float16AndBFloat16AreTheirConversions) {
  std::mt19937 random(1);
  std::vector<float> x(100000);
  for (float& value : x) {
    value = std::bit_cast<float>(static_cast<std::uint32_t>(random()));
  }
  std::vector<float> y(x.size());
  FloatCall call{{5, 10}, Storage::float32, {1, 1, 100000}};
  cpu::float_quantize(call, x.data(), y.data(), serial_for);
  for (std::size_t i = 0; i < x.size(); ++i) {
    ASSERT_TRUE(same_number(y[i], cpu::to_float(cpu::to_half(x[i])))) << x[i];
  }
  call.format = {8, 7};
  cpu::float_quantize(call, x.data(), y.data(), serial_for);
  for (std::size_t i = 0; i < x.size(); ++i) {
    ASSERT_TRUE(same_number(y[i], cpu::to_float(cpu::to_bfloat16(x[i]))))
        << x[i];
  }
}

TEST(FloatQuantize, DoublesAreRoundedOnce) {
  // Just above the tie of 1 and 1 + 2^-10, by less than float32 can tell.
  const double x = 1 + std::ldexp(1.0, -11) + std::ldexp(1.0, -40);
  double y = 0;
  FloatCall call{{5, 10}, Storage::float64, {1, 1, 1}};
  cpu::float_quantize(call, &x, &y, serial_for);
  EXPECT_EQ(y, 1 + std::ldexp(1.0, -10));
}

TEST(FloatQuantize, ScalesByChannelInAnyLayoutAndPlace) {
  const FloatFormat format{4, 3, true};
  const std::vector<double> numbers = numbers_of(format);
  const std::vector<float> scale = {0.5f, 0.01f, 3.0f};
  for (const ChannelLayout& layout :
       {ChannelLayout{2, 3, 700}, ChannelLayout{500, 3, 1}}) {
    const auto numel = static_cast<std::size_t>(layout.numel());
    std::mt19937 random(2);
    std::normal_distribution<float> normal(0, 50);
    std::vector<float> x(numel);
    for (float& value : x) value = normal(random);
    for (const Isa isa : supported_isas()) {
      FloatCall call{format, Storage::float32, layout, scale.data()};
      std::vector<float> y = x;
      cpu::float_quantize(call, y.data(), y.data(), serial_for, isa);
      for (std::size_t i = 0; i < numel; ++i) {
        const float s = scale[i / static_cast<std::size_t>(layout.inner) % 3];
        const auto rounded =
            static_cast<float>(round_slowly(x[i] / s, format, numbers));
        ASSERT_EQ(y[i], rounded * s) << i;
      }
    }
  }
}

TEST(FloatQuantize, SixteenBitTensorsAreComputedAsTheirValues) {
  std::vector<cpu::BFloat16> x(3000), y(3000);
  std::vector<float> values(3000), expected(3000);
  std::mt19937 random(3);
  std::normal_distribution<float> normal(0, 100);
  for (std::size_t i = 0; i < x.size(); ++i) {
    x[i] = cpu::to_bfloat16(normal(random));
    values[i] = cpu::to_float(x[i]);
  }
  FloatCall call{{4, 3, true}, Storage::float32, {1, 1, 3000}};
  cpu::float_quantize(call, values.data(), expected.data(), serial_for);
  call.storage = Storage::bfloat16;
  for (const Isa isa : supported_isas()) {
    cpu::float_quantize(call, x.data(), y.data(), serial_for, isa);
    for (std::size_t i = 0; i < x.size(); ++i) {
      ASSERT_EQ(cpu::to_float(y[i]), expected[i]);
    }
  }
}

TEST(FloatGradient, IsZeroWhereTheFormatEnds) {
  const FloatFormat format{4, 3, true};
  const std::vector<float> scale = {0.1f};
  // 464 is the tie above 448, which is even.
  const std::vector<float> x = {0.0f,  44.8f, 46.3f, 46.5f, -46.3f,
                                -1e6f, kInf,  -kInf, kNan,  1e-30f};
  const std::vector<float> expected = {1, 1, 1, 0, 1, 0, 0, 0, 0, 1};
  const std::vector<float> grad(x.size(), 1.0f);
  FloatCall call{format, Storage::float32, {1, 1, 10}, scale.data()};
  for (const Isa isa : supported_isas()) {
    std::vector<float> dx(x.size());
    cpu::float_gradient(call, grad.data(), x.data(), dx.data(), serial_for,
                        isa);
    EXPECT_EQ(dx, expected);
  }
}

}  // namespace
}  // namespace aimetpp::kernels
