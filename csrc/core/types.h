// SPDX-License-Identifier: BSD-3-Clause
// Value types that every part speaks in: precisions, candidates, integer grids.
#pragma once

#include <compare>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "core/macros.h"

namespace aimetpp {

enum class NumberFormat : std::uint8_t {
  integer,
  ieee_float,
  bfloat,
  e4m3,
  e5m2
};

// How a tensor is represented: "int2" to "int32", a narrow float of
// narrow_floats(), or "fp32", which means that its quantizer is off.
class AIMETPP_API Precision {
 public:
  static constexpr int kMinBitwidth = 2;
  static constexpr int kMaxBitwidth = 32;

  // Throws a value error unless 2 <= bitwidth <= 32.
  static Precision integer(int bitwidth);
  static Precision fp16() { return {16, NumberFormat::ieee_float}; }
  static Precision bf16() { return {16, NumberFormat::bfloat}; }
  static Precision fp8_e4m3() { return {8, NumberFormat::e4m3}; }
  static Precision fp8_e5m2() { return {8, NumberFormat::e5m2}; }
  static Precision fp32() { return {32, NumberFormat::ieee_float}; }
  // From "int8", "fp16", "fp8_e4m3", "fp32"; throws a value error that lists
  // all names.
  static Precision parse(std::string_view name);

  [[nodiscard]] int bitwidth() const { return bitwidth_; }
  [[nodiscard]] NumberFormat format() const { return format_; }
  [[nodiscard]] bool is_integer() const {
    return format_ == NumberFormat::integer;
  }
  // Full precision: the quantizer is off.
  [[nodiscard]] bool is_off() const {
    return format_ == NumberFormat::ieee_float && bitwidth_ == 32;
  }
  [[nodiscard]] std::string name() const;

  friend bool operator==(const Precision&, const Precision&) = default;
  // By bit-width, then integer before float: a total order for sorting only.
  friend std::strong_ordering operator<=>(const Precision&,
                                          const Precision&) = default;

 private:
  Precision(int bitwidth, NumberFormat format)
      : bitwidth_(bitwidth), format_(format) {}
  int bitwidth_;
  NumberFormat format_;
};

// A float precision below fp32.
struct NarrowFloat {
  std::string_view name;  // "fp8_e4m3"
  std::string_view word;  // its data type in Candidate::name: "float_e4m3"
  Precision precision;
  int exponent_bits;
  int mantissa_bits;
  // What is beyond the largest number becomes it, not infinity. Such a format
  // is used with a scale that calibration finds.
  bool saturates;
};

// The one table of them, from the widest.
AIMETPP_API std::span<const NarrowFloat> narrow_floats();

// One choice for a quantizer group: what its activations and its parameters are
// represented in.
struct AIMETPP_API Candidate {
  Precision activation;
  Precision param;

  // "((8, int), (4, int))", the documented way to write one.
  [[nodiscard]] std::string name() const;
  friend bool operator==(const Candidate&, const Candidate&) = default;
};

// The integers a quantizer maps to, both ends included.
struct QuantGrid {
  std::int64_t qmin;
  std::int64_t qmax;
  [[nodiscard]] std::int64_t num_steps() const { return qmax - qmin; }
  friend bool operator==(const QuantGrid&, const QuantGrid&) = default;
};

// Symmetric: [-2^(b-1), 2^(b-1) - 1]; asymmetric: [0, 2^b - 1].
AIMETPP_API QuantGrid integer_grid(int bitwidth, bool symmetric);

}  // namespace aimetpp
