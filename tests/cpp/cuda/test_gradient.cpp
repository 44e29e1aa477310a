// SPDX-License-Identifier: BSD-3-Clause
// The backward CUDA kernels, run on the host, beside the CPU's: gradients to x
// to the last bit, those to ranges but for the order of their sums.
#include <gtest/gtest.h>

#include <array>
#include <cmath>
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
using testing::Order;
using testing::Output;
using testing::Ranges;
using testing::same_numbers;

AIMETPP_IN_ANY_ORDER(CudaGradient);

using Grid = std::array<std::int64_t, 2>;
constexpr Grid kByte = {0, 255};
constexpr Grid kNibble = {-8, 7};
constexpr Grid kWide = {-2147483648, 2147483647};  // computed with in double

template <typename Stored>
struct Gradients {
  std::vector<Stored> dx;
  std::vector<double> dmin, dmax;
};

// Ranges' gradients as the call stores them, float or double.
struct RangeGradients {
  explicit RangeGradients(const QuantCall& call)
      : in_double(call.range_storage == Storage::float64),
        floats(static_cast<std::size_t>(call.layout.channels)),
        doubles(static_cast<std::size_t>(call.layout.channels)) {}

  void* data() {
    return in_double ? static_cast<void*>(doubles.data()) : floats.data();
  }
  [[nodiscard]] std::vector<double> values() const {
    return in_double ? doubles
                     : std::vector<double>(floats.begin(), floats.end());
  }

  bool in_double;
  std::vector<float> floats;
  std::vector<double> doubles;
};

template <typename Stored>
Gradients<Stored> on_cpu(const QuantCall& call, const Stored* grad,
                         const Stored* x) {
  std::vector<Stored> dx(static_cast<std::size_t>(call.layout.numel()));
  RangeGradients dmin(call), dmax(call);
  cpu::gradient(call, grad, x, dx.data(), dmin.data(), dmax.data(), serial_for);
  return {dx, dmin.values(), dmax.values()};
}

template <typename Stored>
Gradients<Stored> on_device(const QuantCall& call, const Source& grad,
                            const Source& x, std::size_t shift) {
  Output<Stored> dx(static_cast<std::size_t>(call.layout.numel()), shift);
  RangeGradients dmin(call), dmax(call);
  // NaN where nothing is written.
  std::vector<double> workspace(
      cuda::gradient_workspace_bytes(call.layout) / sizeof(double),
      std::numeric_limits<double>::quiet_NaN());
  cuda::gradient(call, grad, x, dx.data(), dmin.data(), dmax.data(),
                 workspace.data(), nullptr);
  EXPECT_TRUE(dx.is_alone_written());
  return {dx.values(), dmin.values(), dmax.values()};
}

// Sums of each channel's |grad|: what an error of its sums is measured by.
template <typename Stored>
std::vector<double> magnitudes(const ChannelLayout& layout,
                               const Stored* grad) {
  std::vector<double> sums(static_cast<std::size_t>(layout.channels));
  for (std::int64_t i = 0; i < layout.numel(); ++i) {
    sums[static_cast<std::size_t>(i / layout.inner % layout.channels)] +=
        std::abs(testing::as_double(grad[i]));
  }
  return sums;
}

void expect_near(const std::vector<double>& got,
                 const std::vector<double>& expected,
                 const std::vector<double>& magnitudes, double tolerance) {
  ASSERT_EQ(got.size(), expected.size());
  for (std::size_t c = 0; c < got.size(); ++c) {
    if (std::isnan(expected[c])) {
      EXPECT_TRUE(std::isnan(got[c])) << c;
    } else {
      EXPECT_NEAR(got[c], expected[c], tolerance * magnitudes[c]) << c;
    }
  }
}

template <typename Stored>
void expect_same(const QuantCall& call, std::size_t shift) {
  const auto count = static_cast<std::size_t>(call.layout.numel());
  Memory<Stored> grad(count, shift), x(count, shift);
  testing::fill(grad, 1, false);
  testing::fill(x, 2, false);
  const auto expected = on_cpu(call, grad.data(), x.data());
  const auto got = on_device<Stored>(call, grad.data(), x.data(), shift);
  EXPECT_TRUE(same_numbers(got.dx, expected.dx));
  // dL/dmin and dL/dmax of one element are at most about |grad| where a call
  // fake-quantizes, but |grad| times up to all steps in the other modes.
  const double steps = call.mode == QuantMode::fake_quantize
                           ? 1
                           : static_cast<double>(call.grid[1] - call.grid[0]);
  const bool in_double = call.storage == Storage::float64 &&
                         call.range_storage == Storage::float64;
  const double tolerance = steps * (in_double ? 1e-13 : 1e-6);
  const std::vector<double> sizes = magnitudes(call.layout, grad.data());
  expect_near(got.dmin, expected.dmin, sizes, tolerance);
  expect_near(got.dmax, expected.dmax, sizes, tolerance);
}

TEST_P(CudaGradient, IsTheCpus) {
  for (const ChannelLayout& layout : testing::layouts()) {
    SCOPED_TRACE(testing::describe(layout));
    const Ranges ranges(layout.channels);
    testing::for_all_storages([&](Storage storage, auto stored) {
      for (const std::size_t shift : {0, 1}) {
        expect_same<decltype(stored)>(
            ranges.call(layout, kByte, false, storage), shift);
      }
    });
  }
}

TEST_P(CudaGradient, TakesRangesInDouble) {
  for (const ChannelLayout& layout :
       {ChannelLayout{1, 1, 5003}, {3, 4, 16}, {40, 33, 1}}) {
    SCOPED_TRACE(testing::describe(layout));
    const Ranges ranges(layout.channels, true);
    testing::for_all_storages([&](Storage storage, auto stored) {
      expect_same<decltype(stored)>(ranges.call(layout, kNibble, true, storage),
                                    0);
    });
  }
}

TEST_P(CudaGradient, IsTheCpusInOtherModes) {
  for (const ChannelLayout& layout :
       {ChannelLayout{1, 1, 5003}, {3, 4, 16}, {40, 33, 1}}) {
    SCOPED_TRACE(testing::describe(layout));
    const Ranges ranges(layout.channels);
    testing::for_all_storages([&](Storage storage, auto stored) {
      QuantCall call = ranges.call(layout, kNibble, false, storage);
      for (const QuantMode mode :
           {QuantMode::quantize, QuantMode::dequantize}) {
        call.mode = mode;
        expect_same<decltype(stored)>(call, 0);
      }
      expect_same<decltype(stored)>(ranges.call(layout, kWide, true, storage),
                                    0);
    });
  }
}

// More partial sums of a channel than a block has threads.
TEST(LongCudaGradient, AddsAllPartialSums) {
  const Ranges ranges(1);
  expect_same<float>(
      ranges.call({1, 1, 4096 * 300 + 5}, kByte, false, Storage::float32), 0);
}

// A NaN makes the sums of its channel NaN, and of no other.
TEST_P(CudaGradient, KeepsNanToItsChannel) {
  for (const ChannelLayout& layout :
       {ChannelLayout{3, 4, 400}, ChannelLayout{200, 5, 1}}) {
    const Ranges ranges(layout.channels);
    const QuantCall call = ranges.call(layout, kByte, false, Storage::float32);
    const auto count = static_cast<std::size_t>(layout.numel());
    Memory<float> grad(count), x(count);
    testing::fill(grad, 1, false);
    testing::fill(x, 2, false);
    const auto inner = static_cast<std::size_t>(layout.inner);
    x[2 * inner] = std::numeric_limits<float>::quiet_NaN();  // channel 2
    x[3 * inner] = std::numeric_limits<float>::infinity();   // channel 3
    const auto expected = on_cpu(call, grad.data(), x.data());
    const auto got = on_device<float>(call, grad.data(), x.data(), 0);
    EXPECT_TRUE(same_numbers(got.dx, expected.dx));
    EXPECT_TRUE(std::isnan(got.dmax[2]));
    expect_near(got.dmin, expected.dmin, magnitudes(layout, grad.data()), 1e-6);
    expect_near(got.dmax, expected.dmax, magnitudes(layout, grad.data()), 1e-6);
  }
}

// The bits of the sums are those of one order of additions, however threads
// take turns and however the tensors lie: the first of all is kept.
TEST_P(CudaGradient, SumsInOneOrder) {
  static std::vector<std::vector<double>> first;
  std::vector<std::vector<double>> sums;
  for (const ChannelLayout& layout :
       {ChannelLayout{1, 1, 30000}, {70, 5, 88}, {9, 3, 1003}, {700, 40, 1}}) {
    const Ranges ranges(layout.channels);
    const auto count = static_cast<std::size_t>(layout.numel());
    testing::for_all_storages([&](Storage storage, auto stored) {
      using Stored = decltype(stored);
      const QuantCall call = ranges.call(layout, kByte, false, storage);
      Memory<Stored> grad(count), x(count), spread(2 * count);
      testing::fill(grad, 1, false);
      testing::fill(x, 2, false);
      for (std::size_t i = 0; i < count; ++i) spread[2 * i] = x[i];
      Strides gaps;
      gaps.dims = 1;
      gaps.sizes[0] = layout.numel();
      gaps.strides[0] = 2;
      const auto packed = on_device<Stored>(call, grad.data(), x.data(), 0);
      const auto scattered =
          on_device<Stored>(call, grad.data(), Source(spread.data(), gaps), 1);
      EXPECT_TRUE(same_numbers(scattered.dx, packed.dx));
      EXPECT_EQ(scattered.dmin, packed.dmin);
      EXPECT_EQ(scattered.dmax, packed.dmax);
      sums.push_back(packed.dmin);
      sums.push_back(packed.dmax);
    });
  }
  if (first.empty()) first = sums;
  EXPECT_EQ(sums, first);
}

TEST_P(CudaGradient, MayTakeTheGradientsPlace) {
  const ChannelLayout layout{3, 4, 1024};
  const Ranges ranges(layout.channels);
  const QuantCall call = ranges.call(layout, kByte, false, Storage::float32);
  const auto count = static_cast<std::size_t>(layout.numel());
  Memory<float> grad(count), x(count);
  testing::fill(grad, 1, false);
  testing::fill(x, 2, true);
  const auto expected = on_cpu(call, grad.data(), x.data());
  Memory<float> other = grad;
  std::vector<double> workspace(cuda::gradient_workspace_bytes(layout) /
                                sizeof(double));
  RangeGradients dmin(call), dmax(call);
  cuda::gradient(call, grad.data(), x.data(), grad.data(), dmin.data(),
                 dmax.data(), workspace.data(), nullptr);
  cuda::input_gradient(call, other.data(), x.data(), other.data(), nullptr);
  for (Memory<float>* dx : {&grad, &other}) {
    EXPECT_TRUE(same_numbers(std::vector<float>(dx->data(), dx->data() + count),
                             expected.dx));
  }
}

// ------------------------------------------------------------- input gradient

TEST(CudaInputGradient, IsTheCpusToTheLastBit) {
  for (const ChannelLayout& layout : testing::layouts()) {
    SCOPED_TRACE(testing::describe(layout));
    const Ranges ranges(layout.channels);
    const auto count = static_cast<std::size_t>(layout.numel());
    testing::for_all_storages([&](Storage storage, auto stored) {
      using Stored = decltype(stored);
      for (const Grid& grid : {kByte, kWide}) {
        const QuantCall call = ranges.call(layout, grid, false, storage);
        for (const std::size_t shift : {0, 1}) {
          Memory<Stored> grad(count), x(count, shift);
          testing::fill(grad, 1, true);
          testing::fill(x, 2, true);
          std::vector<Stored> expected(count);
          cpu::input_gradient(call, grad.data(), x.data(), expected.data(),
                              serial_for);
          Output<Stored> dx(count);
          cuda::input_gradient(call, grad.data(), x.data(), dx.data(), nullptr);
          EXPECT_TRUE(same_numbers(dx.values(), expected));
          EXPECT_TRUE(dx.is_alone_written());
        }
      }
    });
  }
}

TEST(CudaInputGradient, FindsElementsWhereverTheyLie) {
  const ChannelLayout layout{10, 3, 7};
  const Ranges ranges(layout.channels);
  const QuantCall call = ranges.call(layout, kByte, false, Storage::float32);
  const auto count = static_cast<std::size_t>(layout.numel());
  Memory<float> grad(count), x(count), backwards(count);
  testing::fill(grad, 1, false);
  testing::fill(x, 2, true);
  for (std::size_t i = 0; i < count; ++i) backwards[count - 1 - i] = x[i];
  Strides reversed;
  reversed.dims = 1;
  reversed.sizes[0] = layout.numel();
  reversed.strides[0] = -1;
  std::vector<float> expected(count);
  cpu::input_gradient(call, grad.data(), x.data(), expected.data(), serial_for);
  Output<float> dx(count);
  cuda::input_gradient(call, grad.data(),
                       Source(backwards.data() + count - 1, reversed),
                       dx.data(), nullptr);
  EXPECT_TRUE(same_numbers(dx.values(), expected));
}

}  // namespace
}  // namespace aimetpp::kernels
