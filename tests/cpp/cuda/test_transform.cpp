// SPDX-License-Identifier: BSD-3-Clause
// The forward CUDA kernels, run on the host, beside the CPU's: the same bits.
// Their threads do not wait for each other, so that one order is enough.
#include <gtest/gtest.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "cuda/device_tensors.h"
#include "kernels/fake_quant.h"

namespace aimetpp::kernels {
namespace {

using testing::Memory;
using testing::Output;
using testing::Ranges;
using testing::same_numbers;

struct Grid {
  std::array<std::int64_t, 2> ends;
  bool symmetric;
};

// The last one is computed with in double.
const std::vector<Grid> kGrids = {{{0, 3}, false},
                                  {{-8, 7}, true},
                                  {{0, 255}, false},
                                  {{-2147483648, 2147483647}, true}};

// x in the order of the walk on the CPU; on the device in packs where
// shifts[0] and shifts[1], those of x and y, are 0.
template <typename Stored>
void expect_same(const QuantCall& call,
                 const std::array<std::size_t, 2>& shifts) {
  const auto count = static_cast<std::size_t>(call.layout.numel());
  Memory<Stored> x(count, shifts[0]);
  testing::fill(x, 1, true);
  std::vector<Stored> expected(count);
  cpu::transform(call, x.data(), expected.data(), serial_for);
  Output<Stored> y(count, shifts[1]);
  cuda::transform(call, x.data(), y.data(), nullptr);
  EXPECT_TRUE(same_numbers(y.values(), expected));
  EXPECT_TRUE(y.is_alone_written());
}

TEST(CudaTransform, IsTheCpusToTheLastBit) {
  for (const ChannelLayout& layout : testing::layouts()) {
    SCOPED_TRACE(testing::describe(layout));
    const Ranges ranges(layout.channels);
    for (const Grid& grid : kGrids) {
      testing::for_all_storages([&](Storage storage, auto stored) {
        QuantCall call =
            ranges.call(layout, grid.ends, grid.symmetric, storage);
        for (const QuantMode mode :
             {QuantMode::fake_quantize, QuantMode::quantize,
              QuantMode::dequantize}) {
          call.mode = mode;
          expect_same<decltype(stored)>(call, {0, 0});
        }
        call.mode = QuantMode::fake_quantize;
        expect_same<decltype(stored)>(call, {1, 0});
        expect_same<decltype(stored)>(call, {0, 1});
      });
    }
  }
}

TEST(CudaTransform, TakesRangesInDouble) {
  const ChannelLayout layout{3, 4, 24};
  const Ranges ranges(4, true);
  testing::for_all_storages([&](Storage storage, auto stored) {
    for (const Grid& grid : kGrids) {
      const QuantCall call =
          ranges.call(layout, grid.ends, grid.symmetric, storage);
      expect_same<decltype(stored)>(call, {0, 0});
      expect_same<decltype(stored)>(call, {1, 1});
    }
  });
}

TEST(CudaTransform, MayWriteOverItsSource) {
  for (const std::size_t shift : {0, 3}) {
    Memory<float> x(4096, shift);
    testing::fill(x, 2, true);
    const Ranges ranges(1);
    const QuantCall call =
        ranges.call({1, 1, 4096}, kGrids[2].ends, false, Storage::float32);
    std::vector<float> expected(4096);
    cpu::transform(call, x.data(), expected.data(), serial_for);
    cuda::transform(call, x.data(), x.data(), nullptr);
    EXPECT_TRUE(same_numbers(std::vector<float>(x.data(), x.data() + x.size()),
                             expected));
  }
}

// x lies transposed, y has gaps.
TEST(CudaTransform, FindsElementsWhereverTheyLie) {
  const ChannelLayout layout{6, 5, 18};
  constexpr std::int64_t kRows = 30;
  constexpr std::size_t kCount = 540;
  Strides transposed;
  transposed.dims = 2;
  transposed.sizes[0] = kRows;
  transposed.sizes[1] = layout.inner;
  transposed.strides[0] = 1;
  transposed.strides[1] = kRows;
  Strides gaps;
  gaps.dims = 1;
  gaps.sizes[0] = layout.numel();
  gaps.strides[0] = 2;
  const Ranges ranges(layout.channels);
  testing::for_all_storages([&](Storage storage, auto stored) {
    using Stored = decltype(stored);
    const QuantCall call = ranges.call(layout, kGrids[1].ends, true, storage);
    Memory<Stored> x(kCount), x_transposed(kCount);
    testing::fill(x, 3, true);
    for (std::size_t i = 0; i < kCount; ++i) {
      x_transposed[i % 18 * kRows + i / 18] = x[i];
    }
    std::vector<Stored> expected(kCount), packed(kCount);
    cpu::transform(call, x.data(), expected.data(), serial_for);
    Output<Stored> y(2 * kCount);
    const std::vector<Stored> before = y.values();
    cuda::transform(call, Source(x_transposed.data(), transposed),
                    Target(y.data(), gaps), nullptr);
    const std::vector<Stored> after = y.values();
    for (std::size_t i = 0; i < kCount; ++i) {
      packed[i] = after[2 * i];
      EXPECT_TRUE(testing::same_number(after[2 * i + 1], before[2 * i + 1]));
    }
    EXPECT_TRUE(same_numbers(packed, expected));
  });
}

// More than all threads of a launch take in one step.
TEST(CudaTransform, GoesOnBehindTheLastThread) {
  constexpr std::int64_t kOneStep = 8192 * 256;
  const Ranges ranges(1);
  expect_same<double>(ranges.call({1, 1, 2 * (kOneStep + 300)}, kGrids[2].ends,
                                  false, Storage::float64),
                      {0, 0});
  expect_same<cpu::BFloat16>(ranges.call({1, 1, kOneStep + 301}, kGrids[2].ends,
                                         false, Storage::bfloat16),
                             {1, 0});
}

}  // namespace
}  // namespace aimetpp::kernels
