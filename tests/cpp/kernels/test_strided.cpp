// SPDX-License-Identifier: BSD-3-Clause
// Tensors with gaps and in another order, element by element.
#include "kernels/strided.h"

#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <random>
#include <vector>

#include "kernels/cpu/stretches.h"
#include "kernels/fake_quant.h"

namespace aimetpp::kernels {
namespace {

// [3, 4, 5] read from a [5, 3, 8] with every second index of the last.
Strides transposed_with_gaps() {
  Strides where;
  where.dims = 3;
  const std::array<std::int64_t, 3> sizes = {3, 4, 5};
  const std::array<std::int64_t, 3> strides = {8, 2, 24};
  for (std::size_t dim = 0; dim < 3; ++dim) {
    where.sizes[dim] = sizes[dim];
    where.strides[dim] = strides[dim];
  }
  return where;
}

std::vector<std::int64_t> offsets_one_by_one() {
  std::vector<std::int64_t> offsets;
  for (std::int64_t i = 0; i < 3; ++i) {
    for (std::int64_t j = 0; j < 4; ++j) {
      for (std::int64_t k = 0; k < 5; ++k) {
        offsets.push_back(8 * i + 2 * j + 24 * k);
      }
    }
  }
  return offsets;
}

TEST(Strides, FindEveryElement) {
  const Strides where = transposed_with_gaps();
  const std::vector<std::int64_t> expected = offsets_one_by_one();
  for (std::size_t i = 0; i < expected.size(); ++i) {
    EXPECT_EQ(where.offset_of(static_cast<std::int64_t>(i)), expected[i]);
  }
  EXPECT_EQ(Strides().offset_of(77), 77);
}

TEST(Strides, FindElementsBeyondTwoBillion) {
  Strides where;
  where.dims = 3;
  where.sizes[0] = 1000;
  where.sizes[1] = 3'000'000'000;
  where.sizes[2] = 7;
  where.strides[0] = 5;
  where.strides[1] = 10'000;
  where.strides[2] = -3;
  const std::int64_t index = (123 * where.sizes[1] + 2'999'999'999) * 7 + 6;
  EXPECT_EQ(where.offset_of(index),
            123 * 5 + 2'999'999'999 * std::int64_t{10'000} - 18);
}

TEST(Stretches, AreReadAndWrittenFromAnywhereToAnywhere) {
  const Strides where = transposed_with_gaps();
  const std::vector<std::int64_t> offsets = offsets_one_by_one();
  std::vector<float> memory(5 * 3 * 8);
  for (std::size_t i = 0; i < memory.size(); ++i) {
    memory[i] = static_cast<float>(i);
  }
  cpu::SourceStretches<float> source(Source(memory.data(), where), 60);
  for (std::int64_t begin = 0; begin < 60; ++begin) {
    for (std::int64_t n = 1; begin + n <= 60; ++n) {
      const float* values = source.read(begin, n);
      std::vector<float> written(memory.size(), -1);
      cpu::TargetStretches<float> target(Target(written.data(), where), n);
      for (std::int64_t i = 0; i < n; ++i) target.place(begin)[i] = values[i];
      target.store(begin, n);
      std::vector<float> expected(memory.size(), -1);
      for (std::int64_t i = 0; i < n; ++i) {
        const auto at = static_cast<std::size_t>(
            offsets[static_cast<std::size_t>(begin + i)]);
        ASSERT_EQ(values[i], memory[at]);
        expected[at] = memory[at];
      }
      ASSERT_EQ(written, expected);
    }
  }
}

TEST(Stretches, InOrderAreTheMemoryItself) {
  std::vector<float> memory(10);
  cpu::SourceStretches<float> source(Source(memory.data()), 10);
  cpu::TargetStretches<float> target(Target(memory.data()), 10);
  EXPECT_EQ(source.read(3, 4), memory.data() + 3);
  EXPECT_EQ(target.place(3), memory.data() + 3);
}

// x and grad lie transposed, dx has gaps: the same bits, sums included.
TEST(Gradient, DoesNotDependOnHowTensorsLie) {
  for (const ChannelLayout& layout :
       {ChannelLayout{70, 5, 90}, ChannelLayout{700, 9, 1}}) {
    const std::int64_t rows = layout.outer * layout.channels;
    const auto count = static_cast<std::size_t>(layout.numel());
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    std::vector<float> x(count), grad(count), dx(count);
    std::vector<float> x_transposed(count), dx_with_gaps(2 * count);
    const std::vector<float> min(9, -1.5f), max(9, 1.25f);
    const std::array<std::int64_t, 2> grid = {0, 15};
    for (std::size_t i = 0; i < count; ++i) {
      x[i] = normal(random);
      grad[i] = normal(random);
      const auto width = static_cast<std::size_t>(layout.inner);
      x_transposed[i % width * static_cast<std::size_t>(rows) + i / width] =
          x[i];
    }
    Strides transposed;
    transposed.dims = 2;
    transposed.sizes[0] = rows;
    transposed.sizes[1] = layout.inner;
    transposed.strides[0] = 1;
    transposed.strides[1] = rows;
    Strides gaps;
    gaps.dims = 1;
    gaps.sizes[0] = layout.numel();
    gaps.strides[0] = 2;

    QuantCall call;
    call.layout = layout;
    call.min = min.data();
    call.max = max.data();
    call.grid = grid.data();
    std::vector<float> dmin(9), dmax(9), other_dmin(9), other_dmax(9);
    cpu::gradient(call, grad.data(), x.data(), dx.data(), dmin.data(),
                  dmax.data(), serial_for);
    for (const Isa isa : supported_isas()) {
      cpu::gradient(call, grad.data(), Source(x_transposed.data(), transposed),
                    Target(dx_with_gaps.data(), gaps), other_dmin.data(),
                    other_dmax.data(), serial_for, isa);
      for (std::size_t i = 0; i < count; ++i) {
        ASSERT_EQ(dx_with_gaps[2 * i], dx[i]) << i;
        ASSERT_EQ(dx_with_gaps[2 * i + 1], 0) << i;
      }
      EXPECT_EQ(other_dmin, dmin);
      EXPECT_EQ(other_dmax, dmax);
    }
  }
}

}  // namespace
}  // namespace aimetpp::kernels
