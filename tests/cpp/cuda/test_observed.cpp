// SPDX-License-Identifier: BSD-3-Clause
// The CUDA kernel that quantizes and observes, run on the host, beside the
// CPU's: the same bits.
#include <gtest/gtest.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "cuda/device_tensors.h"
#include "kernels/fake_quant.h"

namespace aimetpp::kernels {
namespace {

using testing::InAnyOrder;
using testing::Memory;
using testing::Output;
using testing::Ranges;
using testing::same_number;
using testing::same_numbers;

AIMETPP_IN_ANY_ORDER(CudaObserved);

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr std::array<std::int64_t, 2> kByte = {0, 255};
constexpr std::array<std::int64_t, 2> kWide = {-2147483648, 2147483647};

template <typename Stored>
void expect_same(const QuantCall& call, Memory<Stored>& x) {
  const std::size_t count = x.size();
  std::vector<Stored> expected(count);
  float least = 0, largest = 0, expected_least = 0, expected_largest = 0;
  cpu::transform_observed(call, x.data(), expected.data(), &expected_least,
                          &expected_largest, serial_for);
  Output<Stored> y(count);
  cuda::transform_observed(call, x.data(), y.data(), &least, &largest, nullptr);
  EXPECT_TRUE(same_numbers(y.values(), expected));
  EXPECT_TRUE(y.is_alone_written());
  EXPECT_TRUE(same_number(least, expected_least))
      << least << ", expected " << expected_least;
  EXPECT_TRUE(same_number(largest, expected_largest))
      << largest << ", expected " << expected_largest;
}

TEST_P(CudaObserved, IsTheCpusToTheLastBit) {
  const Ranges ranges(1);
  for (const std::int64_t count : {0, 1, 3, 8, 31, 33, 255, 257, 4096, 9001}) {
    SCOPED_TRACE(count);
    testing::for_all_storages([&](Storage storage, auto stored) {
      using Stored = decltype(stored);
      for (const auto& grid : {kByte, kWide}) {
        const QuantCall call = ranges.call({1, 1, count}, grid, false, storage);
        for (const std::size_t shift : {0, 1}) {
          Memory<Stored> x(static_cast<std::size_t>(count), shift);
          testing::fill(x, 1, true);
          expect_same(call, x);
        }
      }
    });
  }
}

// Each extreme in turn at every place, so that each thread, warp and block is
// once the one that has it; the others are of either sign, or not finite.
TEST_P(CudaObserved, FindsExtremesAnywhere) {
  constexpr std::int64_t kCount = 2500;
  const Ranges ranges(1);
  const QuantCall call =
      ranges.call({1, 1, kCount}, kByte, false, Storage::float32);
  Memory<float> x(kCount);
  for (const auto& [others, extreme] : std::vector<std::array<float, 2>>{
           {2.0f, 1.0f},
           {2.0f, 3.0f},
           {-2.0f, -1.0f},
           {-2.0f, -3.0f},
           {-kInfinity, 5.0f},
           {kInfinity, -0.0f},
           {std::numeric_limits<float>::quiet_NaN(), 1e-42f}}) {
    for (std::size_t place = 0; place < kCount; place += 97) {
      std::fill(x.data(), x.data() + kCount, others);
      x[place] = extreme;
      expect_same(call, x);
    }
  }
}

TEST_P(CudaObserved, SaysWhereNothingIsFinite) {
  const Ranges ranges(1);
  const QuantCall call =
      ranges.call({1, 1, 700}, kByte, false, Storage::float64);
  Memory<double> x(700);
  for (const double value : {std::numeric_limits<double>::quiet_NaN(),
                             std::numeric_limits<double>::infinity(), -1e300}) {
    std::fill(x.data(), x.data() + 700, value);
    expect_same(call, x);
    float least = 0, largest = 0;
    Output<double> y(700);
    cuda::transform_observed(call, x.data(), y.data(), &least, &largest,
                             nullptr);
    EXPECT_EQ(least, kInfinity);
    EXPECT_EQ(largest, -kInfinity);
  }
}

TEST_P(CudaObserved, ReadsElementsWhereverTheyLie) {
  constexpr std::int64_t kCount = 1003;
  const Ranges ranges(1);
  const QuantCall call =
      ranges.call({1, 1, kCount}, kByte, false, Storage::float16);
  Memory<cpu::Half> x(kCount), spread(3 * kCount);
  testing::fill(x, 1, true);
  for (std::size_t i = 0; i < kCount; ++i) spread[3 * i] = x[i];
  Strides gaps;
  gaps.dims = 1;
  gaps.sizes[0] = kCount;
  gaps.strides[0] = 3;
  std::vector<cpu::Half> expected(kCount);
  float least = 0, largest = 0, expected_least = 0, expected_largest = 0;
  cpu::transform_observed(call, x.data(), expected.data(), &expected_least,
                          &expected_largest, serial_for);
  Output<cpu::Half> y(kCount);
  cuda::transform_observed(call, Source(spread.data(), gaps), y.data(), &least,
                           &largest, nullptr);
  EXPECT_TRUE(same_numbers(y.values(), expected));
  EXPECT_EQ(least, expected_least);
  EXPECT_EQ(largest, expected_largest);
}

}  // namespace
}  // namespace aimetpp::kernels
