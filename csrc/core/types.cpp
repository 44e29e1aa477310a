// SPDX-License-Identifier: BSD-3-Clause
#include "core/types.h"

#include <array>
#include <charconv>

#include "core/error.h"
#include "core/text.h"

namespace aimetpp {
namespace {

std::string_view format_word(const Precision& precision) {
  for (const NarrowFloat& row : narrow_floats()) {
    if (row.precision == precision) return row.word;
  }
  return precision.is_integer() ? "int" : "float";
}

}  // namespace

Precision Precision::integer(int bitwidth) {
  if (bitwidth < kMinBitwidth || bitwidth > kMaxBitwidth) {
    raise_value_error("bitwidth must be between ", kMinBitwidth, " and ",
                      kMaxBitwidth, ", got ", bitwidth);
  }
  return {bitwidth, NumberFormat::integer};
}

Precision Precision::parse(std::string_view name) {
  if (name == "fp32") return fp32();
  for (const NarrowFloat& row : narrow_floats()) {
    if (row.name == name) return row.precision;
  }
  constexpr std::string_view kPrefix = "int";
  if (name.substr(0, kPrefix.size()) == kPrefix) {
    const std::string_view digits = name.substr(kPrefix.size());
    int bitwidth = 0;
    const auto [end, error] =
        std::from_chars(digits.data(), digits.data() + digits.size(), bitwidth);
    if (error == std::errc() && end == digits.data() + digits.size() &&
        digits.front() != '0' && bitwidth >= kMinBitwidth &&
        bitwidth <= kMaxBitwidth) {
      return integer(bitwidth);
    }
  }
  std::string floats;
  for (const NarrowFloat& row : narrow_floats()) {
    floats += concat(", \"", row.name, "\"");
  }
  raise_value_error("precision must be \"int2\" to \"int32\"", floats,
                    " or \"fp32\", got \"", name, "\"");
}

std::string Precision::name() const {
  if (is_integer()) return "int" + std::to_string(bitwidth_);
  for (const NarrowFloat& row : narrow_floats()) {
    if (row.precision == *this) return std::string(row.name);
  }
  return "fp32";
}

std::span<const NarrowFloat> narrow_floats() {
  static const std::array<NarrowFloat, 4> table = {{
      {"fp16", "float", Precision::fp16(), 5, 10, false},
      {"bf16", "bfloat", Precision::bf16(), 8, 7, false},
      {"fp8_e4m3", "float_e4m3", Precision::fp8_e4m3(), 4, 3, true},
      {"fp8_e5m2", "float_e5m2", Precision::fp8_e5m2(), 5, 2, true},
  }};
  return table;
}

std::string Candidate::name() const {
  return concat("((", activation.bitwidth(), ", ", format_word(activation),
                "), (", param.bitwidth(), ", ", format_word(param), "))");
}

QuantGrid integer_grid(int bitwidth, bool symmetric) {
  const Precision checked = Precision::integer(bitwidth);
  const std::int64_t steps = std::int64_t{1} << checked.bitwidth();
  if (symmetric) return {-steps / 2, steps / 2 - 1};
  return {0, steps - 1};
}

}  // namespace aimetpp
