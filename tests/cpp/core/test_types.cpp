// SPDX-License-Identifier: BSD-3-Clause
#include "core/types.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/float_grid.h"

namespace aimetpp {
namespace {

std::string message_of_parse(const std::string& name) {
  try {
    (void)Precision::parse(name);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::value);
    return error.what();
  }
  return "";
}

TEST(Precision, NamesGoThereAndBack) {
  for (const char* name : {"int2", "int4", "int8", "int16", "int32", "fp8_e4m3",
                           "fp8_e5m2", "fp16", "bf16", "fp32"}) {
    EXPECT_EQ(Precision::parse(name).name(), name);
  }
}

TEST(Precision, EveryIntegerBitwidthFromTwoToThirtyTwo) {
  for (int bitwidth = 2; bitwidth <= 32; ++bitwidth) {
    const Precision precision = Precision::integer(bitwidth);
    EXPECT_EQ(precision.bitwidth(), bitwidth);
    EXPECT_TRUE(precision.is_integer());
    EXPECT_FALSE(precision.is_off());
    EXPECT_EQ(Precision::parse(precision.name()), precision);
  }
}

TEST(Precision, OnlyFp32IsOff) {
  EXPECT_TRUE(Precision::fp32().is_off());
  EXPECT_FALSE(Precision::fp16().is_off());
  EXPECT_FALSE(Precision::bf16().is_off());
  EXPECT_FALSE(Precision::integer(32).is_off());
}

TEST(Precision, TheTwoHalfFormatsDiffer) {
  EXPECT_NE(Precision::fp16(), Precision::bf16());
  EXPECT_NE(Precision::fp16(), Precision::integer(16));
  EXPECT_FALSE(Precision::fp16().is_integer());
  EXPECT_FALSE(Precision::bf16().is_integer());
}

TEST(Precision, NarrowFloatsHaveTheBitsOfTheirParts) {
  for (const NarrowFloat& row : narrow_floats()) {
    EXPECT_EQ(row.precision.bitwidth(),
              1 + row.exponent_bits + row.mantissa_bits);
    EXPECT_EQ(row.precision.name(), row.name);
    EXPECT_TRUE(is_known({row.exponent_bits, row.mantissa_bits}));
    EXPECT_FALSE(row.precision.is_off());
    EXPECT_FALSE(row.precision.is_integer());
  }
  EXPECT_EQ(narrow_floats().size(), 4);
}

TEST(Precision, BitwidthsOutsideAreRefusedWithTheNumber) {
  for (const int bitwidth : {-8, 0, 1, 33}) {
    try {
      (void)Precision::integer(bitwidth);
      FAIL() << bitwidth;
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::value);
      EXPECT_EQ(
          std::string(error.what()),
          "bitwidth must be between 2 and 32, got " + std::to_string(bitwidth));
    }
  }
}

TEST(Precision, UnknownNamesAreRefusedWithTheChoices) {
  for (const char* name :
       {"", "int", "int1", "int33", "int08", "int8 ", "int-8", "8", "fp8",
        "float16", "INT8", "int99999999999"}) {
    const std::string message = message_of_parse(name);
    EXPECT_NE(message.find("\"int2\" to \"int32\""), std::string::npos) << name;
    EXPECT_NE(message.find("\"fp8_e4m3\", \"fp8_e5m2\" or \"fp32\""),
              std::string::npos);
    EXPECT_NE(message.find("got \"" + std::string(name) + "\""),
              std::string::npos)
        << message;
  }
}

TEST(Precision, SortsByBitwidthThenFormat) {
  std::vector<Precision> precisions = {
      Precision::fp32(),     Precision::bf16(),    Precision::integer(16),
      Precision::integer(4), Precision::fp16(),    Precision::fp8_e5m2(),
      Precision::fp8_e4m3(), Precision::integer(8)};
  std::sort(precisions.begin(), precisions.end());
  std::vector<std::string> names;
  for (const Precision& precision : precisions) {
    names.push_back(precision.name());
  }
  EXPECT_EQ(names,
            (std::vector<std::string>{"int4", "int8", "fp8_e4m3", "fp8_e5m2",
                                      "int16", "fp16", "bf16", "fp32"}));
}

TEST(Candidate, IsNamedAsDocumented) {
  const Candidate integers{Precision::integer(8), Precision::integer(4)};
  EXPECT_EQ(integers.name(), "((8, int), (4, int))");
  const Candidate floats{Precision::fp16(), Precision::fp16()};
  EXPECT_EQ(floats.name(), "((16, float), (16, float))");
  EXPECT_NE(integers, floats);
  const Candidate narrow{Precision::fp8_e4m3(), Precision::fp8_e5m2()};
  EXPECT_EQ(narrow.name(), "((8, float_e4m3), (8, float_e5m2))");
}

TEST(QuantGrid, HasTheEndsOfTheIntegerTypes) {
  EXPECT_EQ(integer_grid(8, true), (QuantGrid{-128, 127}));
  EXPECT_EQ(integer_grid(8, false), (QuantGrid{0, 255}));
  EXPECT_EQ(integer_grid(2, true), (QuantGrid{-2, 1}));
  EXPECT_EQ(integer_grid(32, true), (QuantGrid{-2147483648LL, 2147483647LL}));
  EXPECT_EQ(integer_grid(32, false), (QuantGrid{0, 4294967295LL}));
}

TEST(QuantGrid, HasTwoToTheBitwidthIntegers) {
  for (int bitwidth = 2; bitwidth <= 32; ++bitwidth) {
    for (const bool symmetric : {false, true}) {
      EXPECT_EQ(integer_grid(bitwidth, symmetric).num_steps() + 1,
                std::int64_t{1} << bitwidth);
    }
  }
}

TEST(QuantGrid, RefusesOtherBitwidths) {
  EXPECT_THROW((void)integer_grid(1, true), Error);
  EXPECT_THROW((void)integer_grid(33, false), Error);
}

}  // namespace
}  // namespace aimetpp
