// SPDX-License-Identifier: BSD-3-Clause
#include "kernels/cpu/storage.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>

namespace aimetpp::kernels {
namespace {

using cpu::BFloat16;
using cpu::Half;

TEST(Storage, EveryHalfComesBack) {
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    const Half half{static_cast<std::uint16_t>(bits)};
    const float value = cpu::to_float(half);
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(cpu::to_float(cpu::to_half(value))));
      EXPECT_GT(bits & 0x7fffU, 0x7c00U);
    } else {
      ASSERT_EQ(cpu::to_half(value).bits, bits);
    }
  }
}

TEST(Storage, HalfByHand) {
  EXPECT_EQ(cpu::to_float(Half{0x3c00}), 1.0f);
  EXPECT_EQ(cpu::to_float(Half{0xc000}), -2.0f);
  EXPECT_EQ(cpu::to_float(Half{0x7bff}), 65504.0f);
  EXPECT_EQ(cpu::to_float(Half{0x0001}), std::ldexp(1.0f, -24));
  EXPECT_EQ(cpu::to_float(Half{0x03ff}), std::ldexp(1023.0f, -24));
  EXPECT_EQ(cpu::to_half(65519.9f).bits, 0x7bff);
  EXPECT_EQ(cpu::to_half(65520.0f).bits, 0x7c00);
  // Ties to even: 1 + 2^-11 lies between 0x3c00 and 0x3c01.
  EXPECT_EQ(cpu::to_half(1.0f + std::ldexp(1.0f, -11)).bits, 0x3c00);
  EXPECT_EQ(cpu::to_half(1.0f + std::ldexp(3.0f, -11)).bits, 0x3c02);
  EXPECT_EQ(cpu::to_half(std::ldexp(1.0f, -25)).bits, 0x0000);
  EXPECT_EQ(cpu::to_half(std::ldexp(1.5f, -25)).bits, 0x0001);
  EXPECT_EQ(cpu::to_half(-0.0f).bits, 0x8000);
}

TEST(Storage, BFloat16ByHand) {
  EXPECT_EQ(cpu::to_float(BFloat16{0x3f80}), 1.0f);
  EXPECT_EQ(cpu::to_bfloat16(1.0f + std::ldexp(1.0f, -8)).bits, 0x3f80);
  EXPECT_EQ(cpu::to_bfloat16(1.0f + std::ldexp(3.0f, -8)).bits, 0x3f82);
  EXPECT_EQ(cpu::to_bfloat16(INFINITY).bits, 0x7f80);
  EXPECT_TRUE(std::isnan(cpu::to_float(cpu::to_bfloat16(NAN))));
}

}  // namespace
}  // namespace aimetpp::kernels
