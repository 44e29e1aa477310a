// SPDX-License-Identifier: BSD-3-Clause
#include "core/types.h"

#include <charconv>

#include "core/error.h"
#include "core/text.h"

namespace aimetpp {
namespace {

const char* format_word(const Precision& precision) {
  switch (precision.format()) {
    case NumberFormat::integer:
      return "int";
    case NumberFormat::ieee_float:
      return "float";
    case NumberFormat::bfloat:
      return "bfloat";
  }
  return "";
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
  if (name == "fp16") return fp16();
  if (name == "bf16") return bf16();
  if (name == "fp32") return fp32();
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
  raise_value_error(
      "precision must be \"int2\" to \"int32\", \"fp16\", \"bf16\" or "
      "\"fp32\", got \"",
      name, "\"");
}

std::string Precision::name() const {
  if (is_integer()) return "int" + std::to_string(bitwidth_);
  if (format_ == NumberFormat::bfloat) return "bf16";
  return "fp" + std::to_string(bitwidth_);
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
