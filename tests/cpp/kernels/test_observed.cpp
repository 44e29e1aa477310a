// SPDX-License-Identifier: BSD-3-Clause
// Fake quantization with extremes, beside the two loops apart.
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "kernels/cpu/storage.h"
#include "kernels/fake_quant.h"

namespace aimetpp::kernels {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

struct Problem {
  std::array<float, 1> min = {-1.5f};
  std::array<float, 1> max = {2.0f};
  std::array<std::int64_t, 2> grid = {0, 255};

  [[nodiscard]] QuantCall call(Storage storage, std::size_t n) const {
    QuantCall call;
    call.storage = storage;
    call.layout = {1, 1, static_cast<std::int64_t>(n)};
    call.min = min.data();
    call.max = max.data();
    call.grid = grid.data();
    return call;
  }
};

// In pieces whose number and size nobody promised, the last ones first.
void in_pieces(std::int64_t count, std::int64_t /*grain*/,
               const RangeBody& body) {
  for (std::int64_t end = count; end > 0; end -= 10007) {
    body(std::max<std::int64_t>(0, end - 10007), end);
  }
}

TEST(TransformObserved, IsTransformAndTheExtremesOfWhatIsFinite) {
  std::mt19937 random(0);
  std::normal_distribution<float> normal(0, 3);
  std::vector<float> x(100003);
  for (float& value : x) value = normal(random);
  x[3] = kInf;
  x[20] = -kInf;
  x[50001] = kNan;
  x[77] = -123.0f;
  x.back() = 321.0f;
  const Problem problem;
  const QuantCall call = problem.call(Storage::float32, x.size());
  std::vector<float> expected(x.size());
  cpu::transform(call, x.data(), expected.data(), serial_for);
  for (const Isa isa : supported_isas()) {
    for (const ParallelFor& threads :
         {ParallelFor(serial_for), ParallelFor(in_pieces)}) {
      std::vector<float> y = x;  // in place
      float least = 0;
      float largest = 0;
      cpu::transform_observed(call, y.data(), y.data(), &least, &largest,
                              threads, isa);
      EXPECT_EQ(least, -123.0f);
      EXPECT_EQ(largest, 321.0f);
      for (std::size_t i = 0; i < x.size(); ++i) {
        if (i == 50001) continue;
        ASSERT_EQ(y[i], expected[i]) << i;
      }
      EXPECT_TRUE(std::isnan(y[50001]));
    }
  }
}

TEST(TransformObserved, HasNoExtremesWhereNothingIsFinite) {
  const Problem problem;
  for (const std::vector<float>& x :
       {std::vector<float>{}, std::vector<float>(40, kNan),
        std::vector<float>{kInf, kInf}, std::vector<float>(33, -kInf)}) {
    for (const Isa isa : supported_isas()) {
      std::vector<float> y(x.size());
      float least = 0;
      float largest = 0;
      cpu::transform_observed(problem.call(Storage::float32, x.size()),
                              x.data(), y.data(), &least, &largest, serial_for,
                              isa);
      EXPECT_EQ(least, kInf);
      EXPECT_EQ(largest, -kInf);
    }
  }
}

TEST(TransformObserved, TakesEveryStorage) {
  const Problem problem;
  const std::vector<float> values = {0.5f, -2.0f, 1.0f, 7.0f, kInf, 0.25f};
  std::vector<double> doubles(values.begin(), values.end());
  std::vector<cpu::Half> halves(values.size());
  std::vector<cpu::BFloat16> bfloats(values.size());
  for (std::size_t i = 0; i < values.size(); ++i) {
    halves[i] = cpu::to_half(values[i]);
    bfloats[i] = cpu::to_bfloat16(values[i]);
  }
  const auto check = [&](Storage storage, void* data) {
    float least = 0;
    float largest = 0;
    cpu::transform_observed(problem.call(storage, values.size()), data, data,
                            &least, &largest, serial_for);
    EXPECT_EQ(least, -2.0f);
    EXPECT_EQ(largest, 7.0f);
  };
  check(Storage::float64, doubles.data());
  check(Storage::float16, halves.data());
  check(Storage::bfloat16, bfloats.data());
}

}  // namespace
}  // namespace aimetpp::kernels
