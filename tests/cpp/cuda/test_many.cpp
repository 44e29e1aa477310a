// SPDX-License-Identifier: BSD-3-Clause
// The CUDA kernel of several grids, run on the host: what the CPU gives for
// each of them, to the last bit.
#include <gtest/gtest.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "cuda/device_tensors.h"
#include "kernels/fake_quant.h"

namespace aimetpp::kernels {
namespace {

using testing::InAnyOrder;
using testing::Memory;
using testing::Output;
using testing::Ranges;
using testing::same_numbers;

AIMETPP_IN_ANY_ORDER(CudaMany);

// Bit-widths in turn, one of which is computed with in double.
std::vector<std::array<std::int64_t, 2>> grids(std::size_t count) {
  const std::vector<std::array<std::int64_t, 2>> some = {
      {0, 255}, {0, 3}, {-2147483648, 2147483647}, {-8, 7}, {0, 65535}};
  std::vector<std::array<std::int64_t, 2>> all;
  for (std::size_t i = 0; i < count; ++i) all.push_back(some[i % some.size()]);
  return all;
}

// `shift`: of the last result from where packs begin.
template <typename Stored>
void expect_same(const ChannelLayout& layout, Storage storage,
                 std::size_t number, std::size_t shift) {
  const auto count = static_cast<std::size_t>(layout.numel());
  const Ranges in_float(layout.channels), in_double(layout.channels, true);
  const auto all_grids = grids(number);
  Memory<Stored> x(count);
  testing::fill(x, 1, true);
  std::vector<QuantCall> calls;
  std::vector<Output<Stored>> outputs;
  std::vector<void*> ys;
  for (std::size_t i = 0; i < number; ++i) {
    const Ranges& ranges = i % 3 == 1 ? in_double : in_float;
    calls.push_back(ranges.call(layout, all_grids[i], i % 2 == 1, storage));
    outputs.emplace_back(count, i + 1 == number ? shift : 0);
  }
  for (Output<Stored>& output : outputs) ys.push_back(output.data());
  cuda::transform_many(calls, x.data(), ys, nullptr);
  std::vector<Stored> expected(count);
  for (std::size_t i = 0; i < number; ++i) {
    cpu::transform(calls[i], x.data(), expected.data(), serial_for);
    EXPECT_TRUE(same_numbers(outputs[i].values(), expected)) << i;
    EXPECT_TRUE(outputs[i].is_alone_written());
  }
}

TEST_P(CudaMany, IsTheCpusToTheLastBit) {
  for (const ChannelLayout& layout : testing::layouts()) {
    SCOPED_TRACE(testing::describe(layout));
    testing::for_all_storages([&](Storage storage, auto stored) {
      expect_same<decltype(stored)>(layout, storage, 5, 0);
      expect_same<decltype(stored)>(layout, storage, 2, 1);
    });
  }
}

TEST_P(CudaMany, TakesAnyNumberOfGrids) {
  for (const std::size_t number : {0, 1, 15, 16, 17, 33}) {
    expect_same<float>({3, 4, 30}, Storage::float32, number, 0);
  }
}

}  // namespace
}  // namespace aimetpp::kernels
