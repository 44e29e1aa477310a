// SPDX-License-Identifier: BSD-3-Clause
// Rounding to narrow floating-point formats, written once for CPU and CUDA, as
// core/quant_math.h is for integer grids (and to be compiled alike).
//
// A format has E exponent and M mantissa bits, subnormals, and the bias
// 2^(E-1) - 1. What its largest exponent means differs:
//
//   E  M   name                  largest    above it
//   5  10  float16               65504      infinity
//   8  7   bfloat16              3.39e38    infinity
//   5  2   float8 e5m2           57344      infinity
//   4  3   float8 e4m3 ("fn")    448        NaN
//   3  2   float6 e3m2           28         (nothing: it must saturate)
//   2  3   float6 e2m3           7.5        (nothing)
//   2  1   float4 e2m1           6          (nothing)
//
// The first two are IEEE 754 and Google's, the others those of the Open Compute
// Project ("OCP Microscaling Formats (MX) Specification", version 1.0, 2023).
// Rounding is half-to-even, once; what rounds beyond the largest becomes the
// largest where the call saturates, else infinity or NaN. A NaN stays a NaN,
// negative zero a negative zero. With a scale s, y = round(x / s) * s.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "core/macros.h"
#include "core/quant_math.h"

namespace aimetpp {

// std::bit_cast, which CUDA has on the host only.
template <typename To, typename From>
AIMETPP_FORMULA To bits_as(From from) {
  return __builtin_bit_cast(To, from);
}

struct FloatFormat {
  int exponent_bits = 0;
  int mantissa_bits = 0;
  bool saturates = false;
};

// Whether the format is in the table.
[[nodiscard]] constexpr bool is_known(const FloatFormat& format) {
  const int e = format.exponent_bits;
  const int m = format.mantissa_bits;
  return (e == 5 && (m == 10 || m == 2)) || (e == 8 && m == 7) ||
         (e == 4 && m == 3) || (e == 3 && m == 2) ||
         (e == 2 && (m == 1 || m == 3));
}

// Whether a value above the largest has a name in the format.
[[nodiscard]] constexpr bool has_overflow(const FloatFormat& format) {
  return format.exponent_bits >= 4;
}

[[nodiscard]] inline double largest_value(const FloatFormat& format) {
  const int bias = (1 << (format.exponent_bits - 1)) - 1;
  // The largest exponent holds infinity and NaN alone, in e4m3 one NaN beside
  // numbers, in the formats below only numbers.
  const bool is_e4m3 = format.exponent_bits == 4;
  const int top = (1 << format.exponent_bits) - 1 - bias -
                  (has_overflow(format) && !is_e4m3 ? 1 : 0);
  const double step = std::ldexp(1.0, -format.mantissa_bits);
  return std::ldexp(2 - (is_e4m3 ? 2 : 1) * step, top);
}

// A format with what the loops need of it. Compute: float or double, whose own
// mantissa is longer than the format's.
template <typename Compute>
struct FloatGrid {
  using Bits = std::conditional_t<sizeof(Compute) == sizeof(std::uint32_t),
                                  std::uint32_t, std::uint64_t>;
  static constexpr int kMantissaBits = std::numeric_limits<Compute>::digits - 1;

  Compute smallest_normal;
  // 2^kMantissaBits subnormal steps: adding it rounds to those.
  Compute subnormal_magic;
  Compute largest;
  Compute overflow;  // what is above the largest
  int dropped_bits;  // of Compute's mantissa
};

template <typename Compute>
[[nodiscard]] FloatGrid<Compute> make_float_grid(const FloatFormat& format) {
  using Grid = FloatGrid<Compute>;
  using Limits = std::numeric_limits<Compute>;
  const int smallest = 2 - (1 << (format.exponent_bits - 1));
  Grid grid{};
  grid.smallest_normal = std::ldexp(Compute{1}, smallest);
  grid.subnormal_magic = std::ldexp(
      Compute{1}, smallest - format.mantissa_bits + Grid::kMantissaBits);
  grid.largest = static_cast<Compute>(largest_value(format));
  if (format.saturates) {
    grid.overflow = grid.largest;
  } else {
    const bool is_e4m3 = format.exponent_bits == 4;
    grid.overflow = is_e4m3 ? Limits::quiet_NaN() : Limits::infinity();
  }
  grid.dropped_bits = Grid::kMantissaBits - format.mantissa_bits;
  return grid;
}

// |x|, rounded, where it may be beyond the largest still.
template <typename Compute>
AIMETPP_FORMULA Compute round_magnitude(Compute magnitude,
                                        const FloatGrid<Compute>& grid) {
  using Bits = typename FloatGrid<Compute>::Bits;
  const Bits bits = bits_as<Bits>(magnitude);
  const Bits one = Bits{1} << grid.dropped_bits;
  const Bits odd = (bits >> grid.dropped_bits) & 1;
  // A carry out of the mantissa goes to the exponent, as it should.
  const Bits rounded = (bits + (one / 2 - 1) + odd) & ~(one - 1);
  const Compute subnormal =
      (magnitude + grid.subnormal_magic) - grid.subnormal_magic;
  return magnitude < grid.smallest_normal ? subnormal
                                          : bits_as<Compute>(rounded);
}

template <typename Compute>
AIMETPP_FORMULA Compute round_to_format(Compute x,
                                        const FloatGrid<Compute>& grid) {
  using Bits = typename FloatGrid<Compute>::Bits;
  constexpr Bits kSign = Bits{1} << (8 * sizeof(Bits) - 1);
  const Bits bits = bits_as<Bits>(x);
  const Compute magnitude = bits_as<Compute>(bits & ~kSign);
  const Compute rounded = round_magnitude(magnitude, grid);
  const Compute in_range = rounded > grid.largest ? grid.overflow : rounded;
  const Compute value = magnitude == magnitude ? in_range : magnitude;  // NaN
  return bits_as<Compute>(bits_as<Bits>(value) | (bits & kSign));
}

// Whether x / scale is within the format's range: what saturates passes no
// gradient. False for NaN.
template <typename Compute>
AIMETPP_FORMULA bool is_in_range(Compute x, Compute scale,
                                 const FloatGrid<Compute>& grid) {
  const Compute ratio = x / scale;
  return round_magnitude(ratio < 0 ? -ratio : ratio, grid) <= grid.largest;
}

}  // namespace aimetpp
