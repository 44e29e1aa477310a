// SPDX-License-Identifier: BSD-3-Clause
// An activation function in the same pass as fake quantization: the bits of
// clamping beforehand.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "kernels/fake_quant.h"

namespace aimetpp::kernels {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

// About a quarter is outside of [-1, 1.5].
std::vector<float> values() {
  std::mt19937 random(0);
  std::uniform_real_distribution<float> value(-2.0F, 2.0F);
  std::vector<float> x = {kNaN, kInfinity, -kInfinity, 0, -0.0F};
  while (x.size() < 1003) x.push_back(value(random));
  return x;
}

std::vector<float> quantized(const std::vector<float>& x, std::int64_t qmax,
                             const Clamp& before, Isa isa) {
  const float min = -1.0F;
  const float max = 1.5F;
  const std::array<std::int64_t, 2> grid = {0, qmax};
  QuantCall call;
  call.layout = {1, 1, static_cast<std::int64_t>(x.size())};
  call.min = &min;
  call.max = &max;
  call.grid = grid.data();
  call.before = before;
  std::vector<float> y(x.size());
  cpu::transform(call, x.data(), y.data(), serial_for, isa);
  return y;
}

TEST(Clamped, BitsOfClampingBeforehand) {
  const std::vector<Clamp> clamps = {{0, kInfinity}, {0, 0.7F},
                                     {-0.25F, 0.3F}, {5, 6},
                                     {-9, -8},       {-kInfinity, kInfinity}};
  const std::vector<float> x = values();
  for (const std::int64_t qmax : {15, 255, (1 << 24) - 1}) {
    for (const Clamp& clamp : clamps) {
      std::vector<float> clamped = x;
      for (float& value : clamped) {
        if (!std::isnan(value))
          value = std::clamp(value, clamp.low, clamp.high);
      }
      const auto expected = quantized(clamped, qmax, {}, Isa::portable);
      for (const Isa isa : supported_isas()) {
        const auto y = quantized(x, qmax, clamp, isa);
        EXPECT_EQ(std::memcmp(y.data(), expected.data(), 4 * y.size()), 0)
            << qmax << " " << clamp.low << " " << clamp.high;
      }
    }
  }
}

}  // namespace
}  // namespace aimetpp::kernels
