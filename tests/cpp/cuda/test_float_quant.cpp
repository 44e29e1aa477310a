// SPDX-License-Identifier: BSD-3-Clause
// The CUDA kernels of narrow float formats, run on the host, beside the CPU's:
// the same bits.
#include "kernels/float_quant.h"

#include <gtest/gtest.h>

#include <cstddef>
#include <vector>

#include "cuda/device_tensors.h"

namespace aimetpp::kernels {
namespace {

using testing::Memory;
using testing::Output;
using testing::same_numbers;

template <typename Stored>
void expect_same(const FloatCall& call, std::size_t shift) {
  const auto count = static_cast<std::size_t>(call.layout.numel());
  Memory<Stored> x(count, shift), grad(count, shift);
  testing::fill(x, 1, true);
  testing::fill(grad, 2, true);
  std::vector<Stored> expected(count);
  Output<Stored> y(count, shift), dx(count, shift);

  cpu::float_quantize(call, x.data(), expected.data(), serial_for);
  cuda::float_quantize(call, x.data(), y.data(), nullptr);
  EXPECT_TRUE(same_numbers(y.values(), expected));
  EXPECT_TRUE(y.is_alone_written());

  cpu::float_gradient(call, grad.data(), x.data(), expected.data(), serial_for);
  cuda::float_gradient(call, grad.data(), x.data(), dx.data(), nullptr);
  EXPECT_TRUE(same_numbers(dx.values(), expected));
  EXPECT_TRUE(dx.is_alone_written());
}

std::vector<float> scales(std::int64_t channels) {
  std::vector<float> values;
  for (std::int64_t c = 0; c < channels; ++c) {
    values.push_back(0.003f + 0.001f * static_cast<float>(c % 50));
  }
  return values;
}

TEST(CudaFloatQuant, IsTheCpusToTheLastBit) {
  const std::vector<FloatFormat> formats = {
      {5, 10},      {8, 7},       {5, 2},       {4, 3},      {4, 3, true},
      {5, 2, true}, {3, 2, true}, {2, 3, true}, {2, 1, true}};
  for (const ChannelLayout& layout :
       {ChannelLayout{1, 1, 1024}, ChannelLayout{1, 1, 1031},
        ChannelLayout{3, 4, 40}, ChannelLayout{20, 9, 1},
        ChannelLayout{0, 5, 1}}) {
    SCOPED_TRACE(testing::describe(layout));
    const std::vector<float> scale = scales(layout.channels);
    for (const FloatFormat& format : formats) {
      testing::for_all_storages([&](Storage storage, auto stored) {
        using Stored = decltype(stored);
        expect_same<Stored>({format, storage, layout, nullptr}, 0);
        expect_same<Stored>({format, storage, layout, scale.data()}, 0);
        expect_same<Stored>({format, storage, layout, scale.data()}, 1);
      });
    }
  }
}

}  // namespace
}  // namespace aimetpp::kernels
