// SPDX-License-Identifier: BSD-3-Clause
// The formula by hand-computed numbers, one element at a time.
#include "core/quant_math.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

namespace aimetpp {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// scale 0.5, offset -3: q = 0..7 stands for -1.5, -1, ..., 2.
AffineGrid<float> half_steps() {
  return make_affine_grid(-1.5f, 2.0f, 0, 7, /*symmetric=*/false);
}

float fake_quantize(float x, const AffineGrid<float>& grid) {
  return transform<QuantMode::fake_quantize>(x, grid);
}

TEST(MakeAffineGrid, AsymmetricOffsetIsTheRoundedStartOfTheRange) {
  const auto grid = half_steps();
  EXPECT_EQ(grid.scale, 0.5f);
  EXPECT_EQ(grid.offset, -3.0f);
  // -1.1 / 0.5 = -2.2 rounds to -2.
  EXPECT_EQ(make_affine_grid(-1.1f, 2.4f, 0, 7, false).offset, -2.0f);
}

TEST(MakeAffineGrid, AsymmetricOffsetStaysOnTheGrid) {
  // A range above zero would ask for offset 2, one below zero for -9.
  EXPECT_EQ(make_affine_grid(1.0f, 4.5f, 0, 7, false).offset, 0.0f);
  EXPECT_EQ(make_affine_grid(-4.5f, -1.0f, 0, 7, false).offset, -7.0f);
}

TEST(MakeAffineGrid, SymmetricOffsetIsZeroOnSignedGridsOfAnyWidth) {
  for (int bitwidth = 2; bitwidth <= 32; ++bitwidth) {
    const std::int64_t half = std::int64_t{1} << (bitwidth - 1);
    const auto grid = make_affine_grid(-1.0, 1.0, -half, half - 1, true);
    EXPECT_EQ(grid.offset, 0.0) << bitwidth;
    EXPECT_FALSE(std::signbit(grid.offset)) << bitwidth;
    EXPECT_EQ(grid.scale, 2.0 / (std::ldexp(1.0, bitwidth) - 1)) << bitwidth;
  }
}

TEST(MakeAffineGrid, SymmetricOffsetOfAnUnsignedGridIsMinusItsMiddle) {
  // (0 + 255) / 2 = 127.5 rounds to the even 128; (0 + 7) / 2 = 3.5 to 4.
  EXPECT_EQ(make_affine_grid(-1.0f, 1.0f, 0, 255, true).offset, -128.0f);
  EXPECT_EQ(make_affine_grid(-1.0f, 1.0f, 0, 7, true).offset, -4.0f);
}

TEST(MakeAffineGrid, ScaleHasALowerBoundThatDependsOnTheGrid) {
  constexpr float kEpsilon = std::numeric_limits<float>::epsilon();
  EXPECT_EQ(make_affine_grid(0.0f, 0.0f, 0, 255, false).scale, kEpsilon);
  EXPECT_EQ(make_affine_grid(-1e-9f, 1e-9f, -128, 127, true).scale, kEpsilon);
  // 0.01 / N is the smaller one where N > 83886.
  EXPECT_EQ(make_affine_grid(0.0, 0.0, 0, 99999, false).scale, 0.01 / 99999);
  EXPECT_EQ(make_affine_grid(1e-9f, -1e-9f, 0, 255, false).scale, -kEpsilon);
}

TEST(NeedsDouble, From22BitsOn) {
  EXPECT_FALSE(needs_double(0, 255));
  EXPECT_FALSE(needs_double(-(1 << 20), (1 << 20) - 1));
  EXPECT_TRUE(needs_double(0, (1 << 22) - 1));
  EXPECT_TRUE(needs_double(0, (std::int64_t{1} << 32) - 1));
}

TEST(Transform, RoundsHalfToEven) {
  const auto grid = make_affine_grid(-128.0f, 127.0f, -128, 127, true);
  const std::vector<std::pair<float, float>> cases = {
      {0.5f, 0.0f},  {1.5f, 2.0f},   {2.5f, 2.0f},
      {-0.5f, 0.0f}, {-1.5f, -2.0f}, {3.4999f, 3.0f}};
  for (const auto& [x, expected] : cases) {
    EXPECT_EQ(fake_quantize(x, grid), expected) << x;
  }
}

TEST(Transform, FakeQuantizeIsDequantizeOfQuantize) {
  const auto grid = half_steps();
  const std::vector<std::vector<float>> cases = {
      // x, q, y
      {-9.0f, 0, -1.5f}, {-1.5f, 0, -1.5f}, {-0.8f, 1, -1.0f}, {0.0f, 3, 0.0f},
      {0.3f, 4, 0.5f},   {2.0f, 7, 2.0f},   {2.2f, 7, 2.0f}};
  for (const auto& row : cases) {
    const float q = transform<QuantMode::quantize>(row[0], grid);
    EXPECT_EQ(q, row[1]) << row[0];
    EXPECT_EQ(transform<QuantMode::dequantize>(q, grid), row[2]) << row[0];
    EXPECT_EQ(fake_quantize(row[0], grid), row[2]) << row[0];
  }
}

TEST(Transform, InfinitySaturatesAndNanStays) {
  const auto grid = half_steps();
  EXPECT_EQ(fake_quantize(kInf, grid), 2.0f);
  EXPECT_EQ(fake_quantize(-kInf, grid), -1.5f);
  EXPECT_TRUE(std::isnan(fake_quantize(kNan, grid)));
  EXPECT_TRUE(std::isnan(transform<QuantMode::quantize>(kNan, grid)));
}

TEST(Gradient, FakeQuantizeInsideAndOutside) {
  const auto grid = half_steps();
  // 0.3 / 0.5 = 0.6, rounded 1: slope 0.4.
  const auto inside = gradient<QuantMode::fake_quantize>(2.0f, 0.3f, grid);
  EXPECT_EQ(inside.x, 2.0f);
  EXPECT_NEAR(inside.scale_term, 2.0f * 0.4f, 1e-6f);
  EXPECT_EQ(inside.offset_term, 0.0f);
  // Above: y = (7 - 3) * scale.
  const auto above = gradient<QuantMode::fake_quantize>(2.0f, 5.0f, grid);
  EXPECT_EQ(above.x, 0.0f);
  EXPECT_EQ(above.scale_term, 2.0f * 4.0f);
  EXPECT_EQ(above.offset_term, 2.0f);
  // Below: y = (0 - 3) * scale.
  EXPECT_EQ(gradient<QuantMode::fake_quantize>(1.0f, -5.0f, grid).scale_term,
            -3.0f);
}

TEST(Gradient, WhatRoundsBackOntoTheGridIsInside) {
  // The grid ends at 2; 2.2 / 0.5 = 4.4 rounds to 4, the last one.
  const auto grid = half_steps();
  EXPECT_EQ(gradient<QuantMode::fake_quantize>(1.0f, 2.2f, grid).x, 1.0f);
  EXPECT_EQ(gradient<QuantMode::fake_quantize>(1.0f, 2.3f, grid).x, 0.0f);
}

TEST(Gradient, NanAndInfinityAreOutside) {
  const auto grid = half_steps();
  const auto nan = gradient<QuantMode::fake_quantize>(1.0f, kNan, grid);
  EXPECT_EQ(nan.x, 0.0f);
  EXPECT_TRUE(std::isnan(nan.scale_term));
  EXPECT_EQ(gradient<QuantMode::fake_quantize>(1.0f, kInf, grid).x, 0.0f);
  EXPECT_EQ(gradient<QuantMode::quantize>(1.0f, kInf, grid).scale_term, 0.0f);
}

TEST(Gradient, QuantizeAndDequantizeChainToFakeQuantize) {
  const auto grid = half_steps();
  for (const float x : {-5.0f, -1.4f, 0.3f, 1.9f, 5.0f}) {
    const float q = transform<QuantMode::quantize>(x, grid);
    const auto outer = gradient<QuantMode::dequantize>(2.0f, q, grid);
    const auto inner = gradient<QuantMode::quantize>(outer.x, x, grid);
    double outer_scale = outer.scale_term, outer_offset = outer.offset_term;
    double inner_scale = inner.scale_term, inner_offset = inner.offset_term;
    finish_sums<QuantMode::dequantize>(grid.scale, outer_scale, outer_offset);
    finish_sums<QuantMode::quantize>(grid.scale, inner_scale, inner_offset);

    const auto whole = gradient<QuantMode::fake_quantize>(2.0f, x, grid);
    double scale = whole.scale_term, offset = whole.offset_term;
    finish_sums<QuantMode::fake_quantize>(grid.scale, scale, offset);
    EXPECT_EQ(inner.x, whole.x) << x;
    EXPECT_NEAR(outer_scale + inner_scale, scale, 1e-5) << x;
    EXPECT_NEAR(outer_offset + inner_offset, offset, 1e-6) << x;
  }
}

TEST(ChainToRange, SymmetricSplitsTheScaleGradient) {
  const auto grid = make_affine_grid(-1.0f, 1.0f, -2, 1, true);  // N = 3
  const auto range = chain_to_range(6.0, 100.0, -1.0f, grid, true);
  EXPECT_DOUBLE_EQ(range.max, 2.0);
  EXPECT_DOUBLE_EQ(range.min, -2.0);
}

TEST(ChainToRange, AsymmetricAddsTheWayThroughTheOffset) {
  // doffset/dmin = 1 / scale = 2 and doffset/dscale = -min / scale^2 = 6:
  // dL/dscale = 7 + 6 * 6 = 43 in all, N = 7.
  const auto range =
      chain_to_range(7.0, 6.0, -1.5f, half_steps(), /*symmetric=*/false);
  EXPECT_DOUBLE_EQ(range.max, 43.0 / 7.0);
  EXPECT_DOUBLE_EQ(range.min, 6.0 * 2.0 - 43.0 / 7.0);
}

TEST(ChainToRange, ClampedOffsetIsAConstant) {
  const auto grid = make_affine_grid(1.0f, 4.5f, 0, 7, false);  // offset 2 -> 0
  const auto range = chain_to_range(7.0, 6.0, 1.0f, grid, false);
  EXPECT_DOUBLE_EQ(range.max, 1.0);
  EXPECT_DOUBLE_EQ(range.min, -1.0);
}

}  // namespace
}  // namespace aimetpp
