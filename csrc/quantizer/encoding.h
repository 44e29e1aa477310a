// SPDX-License-Identifier: BSD-3-Clause
// Range -> encoding: what a quantizer's min and max become on an integer grid.
#pragma once

#include <cstdint>

#include "core/macros.h"
#include "core/types.h"

namespace aimetpp::quantizer {

enum class Symmetry : std::uint8_t {
  asymmetric,
  symmetric,           // signed grid, one more step below zero than above
  strict_symmetric,    // as many steps above zero as below
  unsigned_symmetric,  // [0, max] where no value is negative, else symmetric
};

// The learnable ends of the range, one pair per channel.
struct Range {
  double min = 0;
  double max = 0;
  friend bool operator==(const Range&, const Range&) = default;
};

// The integers that a range lies on. strict_symmetric leaves out the lowest
// integer of the symmetric grid; unsigned_symmetric is the asymmetric grid for
// a range that starts at zero or above, which range_from_min_max gives it only
// when no value was negative. Throws a value error for a bitwidth
// outside 2..32.
AIMETPP_API QuantGrid grid_of_range(Range range, int bitwidth,
                                    Symmetry symmetry);

// min-max calibration: zero is made part of the range, a range too narrow for
// the grid is widened, a symmetric one is balanced around zero so that it is
// [-N', P] steps of one delta, P and N' the steps above and below zero. With
// three steps (2 bits, symmetric) delta is taken as if there were one more step
// above: all three are then of use to values spread evenly around zero.
// Computed in float32 in the order of AIMET's min-max analyzer, so that the
// results are its results to the last bit; what exceeds float32 is clamped to
// its largest number. Throws a value error unless min <= max and both are
// numbers, or for a bitwidth outside 2..32.
AIMETPP_API Range range_from_min_max(double min, double max, int bitwidth,
                                     Symmetry symmetry);

// scale, offset and the range on the grid that a range is rounded to.
struct Encoding {
  double scale = 0;
  std::int64_t offset = 0;  // value = (q + offset) * scale
  double min = 0;           // scale * (offset + qmin)
  double max = 0;           // scale * (offset + qmax)
  friend bool operator==(const Encoding&, const Encoding&) = default;
};

// The numbers with which the kernels quantize (core/quant_math.h): float32, and
// float64 for grids of 22 bits and more, which float32 cannot count. Throws a
// value error for a range that is not finite, or a bitwidth outside 2..32.
AIMETPP_API Encoding encoding_of_range(Range range, int bitwidth,
                                       Symmetry symmetry);

}  // namespace aimetpp::quantizer
