// SPDX-License-Identifier: BSD-3-Clause
// Range -> encoding: what a quantizer's min and max become on an integer grid.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

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

// min-max calibration: zero is made part of the range, a range too narrow for
// the grid is widened, a symmetric one is balanced around zero.
// Source: spec of the reference's MinMax encoding analyzer (float32 arithmetic,
// so that results equal it to the last bit).
AIMETPP_API Range range_from_min_max(double min, double max, int bitwidth,
                                     Symmetry symmetry);

// scale, offset and recalibrated range (offset x scale) of a range.
struct Encoding {
  double scale = 0;
  std::int64_t offset = 0;  // of the grid's zero: value = (q + offset) * scale
  double min = 0;           // scale * (offset + qmin)
  double max = 0;           // scale * (offset + qmax)
};

AIMETPP_API Encoding encoding_of_range(Range range, int bitwidth,
                                       bool symmetric);

}  // namespace aimetpp::quantizer
