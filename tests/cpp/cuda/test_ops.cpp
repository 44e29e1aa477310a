// SPDX-License-Identifier: BSD-3-Clause
// The CUDA side of the torch ops, with tensors of the host and CUDA's kernels
// emulated: beside the same ops on the CPU, to the last bit but for sums.
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/linspace.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <optional>
#include <tuple>
#include <utility>
#include <vector>

#include "ops/find_op.h"

namespace aimetpp::ops {
namespace {

using at::Tensor;
using Axis = std::optional<std::int64_t>;

const c10::DispatchKeySet kCuda(c10::DispatchKey::CUDA);

// A tensor on no grid, float32 [4, 6, 5], in some order and dtype.
Tensor values() {
  return (at::arange(120) * 37 % 101 / 25 - 2).view({4, 6, 5});
}

// Dense ones, with gaps, with elements that share memory, of no elements.
std::vector<Tensor> inputs() {
  const Tensor x = values();
  return {x,
          x.to(at::kHalf),
          x.to(at::kBFloat16),
          x.to(at::kDouble),
          x.transpose(0, 2),
          x.slice(2, 0, 5, 2),
          x.select(1, 0).unsqueeze(1).expand({4, 3, 5}),
          x.view({4, 6, 5, 1}).contiguous(at::MemoryFormat::ChannelsLast),
          x.slice(0, 0, 0)};
}

struct Range {
  Range(const Tensor& x, Axis axis)
      : max(axis ? at::linspace(0.6, 1.7, x.size(*axis)) : at::full({1}, 1.3)),
        min(-0.8 * max),
        grid(at::tensor({0, 15}, at::kLong)) {}
  Tensor max, min, grid;
};

void expect_same(const Tensor& got, const Tensor& expected) {
  EXPECT_EQ(got.scalar_type(), expected.scalar_type());
  EXPECT_EQ(got.sizes(), expected.sizes());
  EXPECT_EQ(got.strides(), expected.strides());
  EXPECT_TRUE(at::equal(got, expected));
}

void expect_close(const Tensor& got, const Tensor& expected) {
  EXPECT_EQ(got.scalar_type(), expected.scalar_type());
  EXPECT_TRUE(got.allclose(expected, 1e-4, 1e-4));
}

// check(x, axis, range) for all inputs, per tensor and per channel.
template <typename Check>
void for_all_inputs(const Check& check) {
  for (const Tensor& x : inputs()) {
    for (const Axis axis : {Axis(), Axis(1), Axis(-1)}) {
      const Axis wrapped = axis ? Axis((*axis + x.dim()) % x.dim()) : axis;
      check(x, axis, Range(x, wrapped));
    }
  }
}

using Forward = Tensor(const Tensor&, const Tensor&, const Tensor&,
                       const Tensor&, bool, Axis);
using InPlace = void(const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                     bool, Axis);
using Backward = std::tuple<Tensor, Tensor, Tensor>(const Tensor&,
                                                    const Tensor&,
                                                    const Tensor&,
                                                    const Tensor&,
                                                    const Tensor&, bool, Axis);
using BackwardInPlace = std::tuple<Tensor, Tensor>(const Tensor&, const Tensor&,
                                                   const Tensor&, const Tensor&,
                                                   const Tensor&, bool, Axis);
using InputGradient = Tensor(const Tensor&, const Tensor&, const Tensor&,
                             const Tensor&, const Tensor&, bool, Axis);
using InputGradientInPlace = void(const Tensor&, const Tensor&, const Tensor&,
                                  const Tensor&, const Tensor&, bool, Axis);

TEST(CudaOps, TransformAsOnTheCpu) {
  for (const char* name : {"fake_quantize", "quantize", "dequantize"}) {
    const auto op = find_op<Forward>(name);
    for_all_inputs([&](const Tensor& x, Axis axis, const Range& range) {
      expect_same(op.redispatch(kCuda, x, range.min, range.max, range.grid,
                                false, axis),
                  op.call(x, range.min, range.max, range.grid, false, axis));
    });
  }
}

TEST(CudaOps, TransformInPlace) {
  const auto op = find_op<InPlace>("fake_quantize_");
  const auto reference = find_op<Forward>("fake_quantize");
  const Tensor room = values();
  for (const Tensor& x : {room, room.transpose(0, 2), room.slice(2, 0, 5, 2)}) {
    room.copy_(values());
    const Range range(x, 1);
    const Tensor expected =
        reference.call(x, range.min, range.max, range.grid, true, 1);
    op.redispatch(kCuda, x, range.min, range.max, range.grid, true, 1);
    EXPECT_TRUE(at::equal(x, expected));
  }
  const Tensor shared = room.select(1, 0).unsqueeze(1).expand({4, 3, 5});
  const Range range(shared, {});
  EXPECT_THROW(
      op.redispatch(kCuda, shared, range.min, range.max, range.grid, true, {}),
      c10::Error);
}

TEST(CudaOps, LearnRangesAsOnTheCpu) {
  const auto op = find_op<Backward>("fake_quantize_backward");
  const auto in_place = find_op<BackwardInPlace>("fake_quantize_backward_");
  for_all_inputs([&](const Tensor& x, Axis axis, const Range& range) {
    const Tensor grad = at::ones(x.sizes(), x.options()).mT().clone().mT();
    const auto [dx, dmin, dmax] =
        op.call(grad, x, range.min, range.max, range.grid, false, axis);
    const auto [got, got_dmin, got_dmax] = op.redispatch(
        kCuda, grad, x, range.min, range.max, range.grid, false, axis);
    expect_same(got, dx);
    expect_close(got_dmin, dmin);
    expect_close(got_dmax, dmax);
    const auto sums = in_place.redispatch(kCuda, grad, x, range.min, range.max,
                                          range.grid, false, axis);
    EXPECT_TRUE(at::equal(grad, dx));
    expect_same(std::get<0>(sums), got_dmin);
    expect_same(std::get<1>(sums), got_dmax);
  });
}

TEST(CudaOps, PassGradientsAsOnTheCpu) {
  const auto op = find_op<InputGradient>("fake_quantize_input_gradient");
  const auto in_place =
      find_op<InputGradientInPlace>("fake_quantize_input_gradient_");
  for_all_inputs([&](const Tensor& x, Axis axis, const Range& range) {
    const Tensor grad = at::ones(x.sizes(), x.options()).mT().clone().mT();
    const Tensor dx =
        op.call(grad, x, range.min, range.max, range.grid, false, axis);
    expect_same(op.redispatch(kCuda, grad, x, range.min, range.max, range.grid,
                              false, axis),
                dx);
    in_place.redispatch(kCuda, grad, x, range.min, range.max, range.grid, false,
                        axis);
    EXPECT_TRUE(at::equal(grad, dx));
  });
}

TEST(CudaOps, ObserveAsOnTheCpu) {
  using Observed = std::tuple<Tensor, Tensor, Tensor>(
      const Tensor&, const Tensor&, const Tensor&, const Tensor&, bool);
  const auto op = find_op<Observed>("fake_quantize_observed");
  for (const Tensor& x : inputs()) {
    const Range range(x, {});
    const auto [y, least, largest] =
        op.call(x, range.min, range.max, range.grid, false);
    const auto [got, got_least, got_largest] =
        op.redispatch(kCuda, x, range.min, range.max, range.grid, false);
    expect_same(got, y);
    expect_same(got_least, least);
    expect_same(got_largest, largest);
  }
}

TEST(CudaOps, TakeSeveralGridsAsOnTheCpu) {
  using Many =
      std::vector<Tensor>(const Tensor&, at::TensorList, at::TensorList,
                          at::TensorList, const c10::List<bool>&, Axis);
  const auto op = find_op<Many>("fake_quantize_many");
  for_all_inputs([&](const Tensor& x, Axis axis, const Range& range) {
    for (const std::size_t count : {0, 1, 3, 18}) {
      const std::vector<Tensor> min(count, range.min), max(count, range.max);
      std::vector<Tensor> grids;
      c10::List<bool> symmetric;
      for (std::size_t i = 0; i < count; ++i) {
        grids.push_back(at::tensor({0, (2 << i) - 1}, at::kLong));
        symmetric.push_back(i % 2 == 0);
      }
      const auto expected = op.call(x, min, max, grids, symmetric, axis);
      const auto got =
          op.redispatch(kCuda, x, min, max, grids, symmetric, axis);
      ASSERT_EQ(got.size(), count);
      for (std::size_t i = 0; i < count; ++i) expect_same(got[i], expected[i]);
    }
  });
  const Tensor x = values();
  const Range range(x, {});
  EXPECT_THROW(op.redispatch(kCuda, x, {range.min}, {}, {range.grid},
                             c10::List<bool>({true}), {}),
               c10::ValueError);
}

TEST(CudaOps, RoundToNarrowFloatsAsOnTheCpu) {
  using Scale = std::optional<Tensor>;
  using Round = Tensor(const Tensor&, std::int64_t, std::int64_t, bool,
                       const Scale&, Axis);
  using Gradient = Tensor(const Tensor&, const Tensor&, std::int64_t,
                          std::int64_t, bool, const Scale&, Axis);
  const auto op = find_op<Round>("float_quantize");
  const auto backward = find_op<Gradient>("float_quantize_backward");
  for_all_inputs([&](const Tensor& x, Axis axis, const Range& range) {
    const Scale scale = range.max / 448;
    expect_same(op.redispatch(kCuda, x, 4, 3, true, scale, axis),
                op.call(x, 4, 3, true, scale, axis));
    const Tensor grad = at::ones(x.sizes(), x.options()).mT().clone().mT();
    expect_same(backward.redispatch(kCuda, grad, x, 4, 3, true, scale, axis),
                backward.call(grad, x, 4, 3, true, scale, axis));
  });
}

TEST(CudaOps, CheckTheirArgumentsFirst) {
  const Tensor x = values();
  const Range range(x, 1);
  EXPECT_THROW(
      find_op<Forward>("fake_quantize")
          .redispatch(kCuda, x, range.min, range.max, range.grid, false, {}),
      c10::ValueError);
  EXPECT_THROW(find_op<Backward>("fake_quantize_backward")
                   .redispatch(kCuda, x.to(at::kHalf), x, range.min, range.max,
                               range.grid, false, 1),
               c10::TypeError);
}

}  // namespace
}  // namespace aimetpp::ops
