// SPDX-License-Identifier: BSD-3-Clause
// What avoids divisions against the divisions that it stands for.
#include "core/reciprocal_grid.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "core/inside_interval.h"
#include "core/quant_math.h"

namespace aimetpp {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

std::uint32_t bits_of(float value) {
  return std::bit_cast<std::uint32_t>(value);
}

std::int32_t largest_integer(const AffineGrid<float>& grid) {
  return static_cast<std::int32_t>(
      std::max(-(grid.qmin + grid.offset), grid.qmax + grid.offset));
}

// x around the ties of the grid, where a last bit decides, and anywhere.
std::vector<float> awkward_values(const AffineGrid<float>& grid,
                                  std::mt19937* random) {
  std::vector<float> values = {0.0F, -0.0F,  kInf,    -kInf,
                               kNan, 1e-38F, -1e-44F, 3.4e38F};
  std::uniform_real_distribution<float> place(grid.qmin - 2, grid.qmax + 2);
  for (int i = 0; i < 300; ++i) {
    const float q = std::rint(place(*random)) + grid.offset;
    float tie = (q + 0.5F) * grid.scale;
    for (int ulp = 0; ulp < 2; ++ulp) tie = std::nextafter(tie, -kInf);
    for (int ulp = 0; ulp < 5; ++ulp) {
      values.push_back(tie);
      tie = std::nextafter(tie, kInf);
    }
    values.push_back((place(*random) + grid.offset) * grid.scale);
    values.push_back(
        std::bit_cast<float>(static_cast<std::uint32_t>((*random)())));
  }
  return values;
}

TEST(ReciprocalGrid, GivesTheBitsOfTheDivision) {
  int by_products = 0;
  std::mt19937 random(0);
  std::uniform_real_distribution<float> mantissa(1.0F, 2.0F);
  for (int trial = 0; trial < 300; ++trial) {
    const int bits = 2 + trial % 19;
    const bool symmetric = trial % 2 == 0;
    const std::int64_t qmin = symmetric ? -(std::int64_t{1} << (bits - 1)) : 0;
    const std::int64_t qmax = qmin + (std::int64_t{1} << bits) - 1;
    const float max = std::ldexp(mantissa(random), trial % 60 - 30);
    const float min = trial % 5 == 0 ? 0.0F : -max * mantissa(random);
    const auto grid = make_affine_grid(min, max, qmin, qmax, symmetric);
    ReciprocalGrid reciprocal{};
    ASSERT_TRUE(make_reciprocal_grid(grid, &reciprocal)) << trial;
    bool by_product = false;
    check_product(grid.scale, largest_integer(grid), &by_product);
    by_products += by_product ? 1 : 0;
    for (const float x : awkward_values(grid, &random)) {
      const float expected = transform<QuantMode::fake_quantize>(x, grid);
      ASSERT_EQ(bits_of(fake_quantize_by_reciprocal<false>(x, reciprocal)),
                bits_of(expected))
          << trial << ": " << x;
      if (by_product) {
        ASSERT_EQ(bits_of(fake_quantize_by_reciprocal<true>(x, reciprocal)),
                  bits_of(expected))
            << trial << ": " << x;
      }
    }
  }
  EXPECT_GT(by_products, 200) << "grids of few bits, nearly all of them";
}

TEST(ReciprocalGrid, LeavesOtherGridsToTheDivision) {
  ReciprocalGrid unused{};
  const auto admits = [&unused](float min, float max, std::int64_t qmax) {
    return make_reciprocal_grid(make_affine_grid(min, max, 0, qmax, false),
                                &unused);
  };
  EXPECT_TRUE(admits(-1.0F, 1.0F, 255));
  EXPECT_FALSE(admits(1.0F, -1.0F, 255));  // negative scale
  EXPECT_FALSE(admits(kNan, 1.0F, 255));
  EXPECT_FALSE(admits(-1.0F, kInf, 255));
  EXPECT_FALSE(admits(-1e30F, 1e30F, 255));
  EXPECT_FALSE(admits(-1.0F, 1.0F, (std::int64_t{1} << 21) - 1));
}

// Every float near a tie of the grid that the scale makes: those where the
// product and the division could round to different integers.
bool rounds_as_division(float scale, std::int32_t largest) {
  ReciprocalGrid grid{};
  AffineGrid<float> affine{scale, 0, 0, static_cast<float>(largest)};
  EXPECT_TRUE(make_reciprocal_grid(affine, &grid));
  for (std::int32_t k = 0; k < largest; ++k) {
    float x = (static_cast<float>(k) + 0.5F) * scale;
    for (int ulp = 0; ulp < 3; ++ulp) x = std::nextafter(x, 0.0F);
    for (int ulp = 0; ulp < 7; ++ulp, x = std::nextafter(x, kInf)) {
      if (round_small(product(x, grid)) != std::rint(x / scale)) return false;
    }
  }
  return true;
}

TEST(CheckProduct, RefusesEveryScaleWithWhichAProductRoundsWrongly) {
  std::mt19937 random(1);
  std::uniform_real_distribution<float> mantissa(1.0F, 2.0F);
  int refused = 0;
  for (int trial = 0; trial < 40000; ++trial) {
    const float scale = mantissa(random);
    bool suffices = false;
    check_product(scale, 255, &suffices);
    if (trial % 40 == 0) {
      ASSERT_TRUE(!suffices || rounds_as_division(scale, 255)) << scale;
    }
    if (suffices) continue;
    ++refused;
  }
  // About 2 * 17 / 2^24 for each of 255 ties.
  EXPECT_GT(refused, 5);
  EXPECT_LT(refused, 60);
}

TEST(Quotient, IsTheDivision) {
  std::mt19937 random(2);
  std::uniform_real_distribution<float> mantissa(1.0F, 2.0F);
  for (int trial = 0; trial < 200000; ++trial) {
    const float scale = std::ldexp(mantissa(random), trial % 50 - 30);
    ReciprocalGrid grid{};
    ASSERT_TRUE(make_reciprocal_grid({scale, 0, 0, 255}, &grid));
    const float x = std::ldexp(scale * mantissa(random), trial % 60 - 50);
    ASSERT_EQ(bits_of(quotient(x, grid)), bits_of(x / scale)) << x;
  }
}

// As the loop with AVX-512 computes it.
float quotient_by_one_part(float x, const ReciprocalGrid& grid) {
  const float near = x * grid.reciprocal;
  return std::fma(std::fma(-grid.scale, near, x), grid.reciprocal, near);
}

TEST(Quotient, NeedsOnePartOfTheReciprocalOfMostScales) {
  std::mt19937 random(3);
  std::uniform_real_distribution<float> mantissa(1.0F, 2.0F);
  int suffices = 0;
  constexpr int kScales = 4000;
  for (int trial = 0; trial < kScales; ++trial) {
    ReciprocalGrid grid{};
    ASSERT_TRUE(make_reciprocal_grid({mantissa(random), 0, 0, 255}, &grid));
    if (!quotients_need_one_part(grid)) continue;
    ++suffices;
    for (int i = 0; i < 100; ++i) {
      const float x = mantissa(random);
      ASSERT_EQ(bits_of(quotient_by_one_part(x, grid)), bits_of(x / grid.scale))
          << x << " / " << grid.scale;
    }
  }
  EXPECT_GT(suffices, kScales / 2);
  // The scale below 2 whose remainder is nearest to the bound: every x.
  ReciprocalGrid hardest{};
  for (float scale = 2; scale > 1.999F; scale = std::nextafter(scale, 0.0F)) {
    ReciprocalGrid grid{};
    ASSERT_TRUE(make_reciprocal_grid({scale, 0, 0, 255}, &grid));
    if (quotients_need_one_part(grid) &&
        std::abs(grid.reciprocal_remainder) >
            std::abs(hardest.reciprocal_remainder)) {
      hardest = grid;
    }
  }
  for (float x = 1; x < 2; x = std::nextafter(x, kInf)) {
    ASSERT_EQ(bits_of(quotient_by_one_part(x, hardest)),
              bits_of(x / hardest.scale))
        << x << " / " << hardest.scale;
  }
}

TEST(InsideInterval, IsWhereTheFormulaSaysInside) {
  std::mt19937 random(3);
  std::uniform_real_distribution<float> mantissa(1.0F, 2.0F);
  for (int trial = 0; trial < 400; ++trial) {
    const int bits = 2 + trial % 15;
    const std::int64_t qmax = (std::int64_t{1} << bits) - 1;
    const float max = std::ldexp(mantissa(random), trial % 80 - 40);
    const float min = trial % 5 == 0 ? 0.0F : -max * mantissa(random);
    const auto grid = make_affine_grid(min, max, 0, qmax, false);
    InsideInterval<float> inside{};
    ASSERT_TRUE(find_inside(grid, &inside));
    for (const float end : {inside.first, inside.last}) {
      for (const float x :
           {end, std::nextafter(end, -kInf), std::nextafter(end, kInf)}) {
        const auto element = gradient<QuantMode::fake_quantize>(1.0F, x, grid);
        ASSERT_EQ(inside.contains(x), element.x == 1.0F) << trial << ": " << x;
      }
    }
    EXPECT_TRUE(inside.contains(0.0F));
    EXPECT_FALSE(inside.contains(kNan));
    EXPECT_FALSE(inside.contains(kInf) || inside.contains(-kInf));
  }
}

TEST(InsideInterval, IsNotFoundForOtherScales) {
  InsideInterval<float> inside{};
  EXPECT_FALSE(
      find_inside(make_affine_grid(1.0F, -1.0F, 0, 255, false), &inside));
  EXPECT_FALSE(
      find_inside(make_affine_grid(kNan, 1.0F, 0, 255, false), &inside));
}

}  // namespace
}  // namespace aimetpp
