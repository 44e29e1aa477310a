// SPDX-License-Identifier: BSD-3-Clause
// Which x pass a gradient through fake_quantize, without a division for each.
#pragma once

#include <cmath>
#include <limits>

#include "core/macros.h"
#include "core/quant_math.h"

namespace aimetpp {

// The x that round onto the grid: those for which gradient<fake_quantize>
// counts x as inside. NaN is not.
template <typename Compute>
struct InsideInterval {
  Compute first;
  Compute last;

  [[nodiscard]] AIMETPP_ALWAYS_INLINE bool contains(Compute x) const {
    return (x >= first) & (x <= last);
  }
};

// The x of an interval around `below` and `above` for which is_inside(x), its
// ends within a few floats of those two. False where they are not found.
template <typename Compute, typename IsInside>
bool find_interval(Compute below, Compute above, const IsInside& is_inside,
                   InsideInterval<Compute>* result) {
  constexpr int kSteps = 8;
  constexpr Compute kInfinity = std::numeric_limits<Compute>::infinity();
  // The last x inside, seen in the direction of `outwards`.
  const auto find_last = [&](Compute x, Compute outwards, Compute* last) {
    for (int i = 0; i < kSteps && !is_inside(x); ++i) {
      x = std::nextafter(x, -outwards);
    }
    for (int i = 0; i < kSteps; ++i) {
      const Compute next = std::nextafter(x, outwards);
      if (!is_inside(next)) {
        *last = x;
        return is_inside(x);
      }
      x = next;
    }
    return false;
  };
  return find_last(below, -kInfinity, &result->first) &&
         find_last(above, kInfinity, &result->last);
}

// False where it is not found: a scale that is not positive, or so rough a grid
// that its ends are not where real numbers would be. x / scale grows with x, so
// what is inside is an interval, which ends about half a step beyond the grid.
template <typename Compute>
bool find_inside(const AffineGrid<Compute>& grid,
                 InsideInterval<Compute>* result) {
  if (!(grid.scale > 0)) return false;
  const auto is_inside = [&grid](Compute x) {
    const Compute q = std::rint(x / grid.scale) - grid.offset;
    return q >= grid.qmin && q <= grid.qmax;
  };
  const Compute half = static_cast<Compute>(0.5);
  return find_interval((grid.qmin + grid.offset - half) * grid.scale,
                       (grid.qmax + grid.offset + half) * grid.scale, is_inside,
                       result);
}

}  // namespace aimetpp
