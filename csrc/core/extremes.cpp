// SPDX-License-Identifier: BSD-3-Clause
#include "core/extremes.h"

#include <cmath>
#include <cstring>

#include "core/lanes.h"

namespace aimetpp {
namespace {

struct ScanSegment {
  template <typename Lanes>
  static AIMETPP_ALWAYS_INLINE void run(const float* data, std::int64_t count,
                                        Scan* scan) {
    constexpr std::int64_t kWidth = Lanes::kWidth;
    // Two of each, so that one need not wait for the other.
    typename Lanes::Floats low[2];
    typename Lanes::Floats high[2];
    typename Lanes::Ints bits[2];
    for (int half = 0; half < 2; ++half) {
      low[half] = typename Lanes::Floats{} + scan->extremes.min;
      high[half] = typename Lanes::Floats{} + scan->extremes.max;
      bits[half] = typename Lanes::Ints{};
    }
    std::int64_t done = 0;
    for (; done + 2 * kWidth <= count; done += 2 * kWidth) {
      for (int half = 0; half < 2; ++half) {
        fetch_page_ahead(data + done + half * kWidth);
        typename Lanes::Floats x;
        load(x, data + done + half * kWidth);
        typename Lanes::Ints pattern;
        std::memcpy(&pattern, &x, sizeof(x));
        pattern &= kWithoutSign;
        bits[half] = pattern > bits[half] ? pattern : bits[half];
        low[half] = x < low[half] ? x : low[half];
        high[half] = x > high[half] ? x : high[half];
      }
    }
    for (int half = 0; half < 2; ++half) {
      for (std::int64_t lane = 0; lane < kWidth; ++lane) {
        scan->include({{low[half][lane], high[half][lane]}, bits[half][lane]});
      }
    }
    for (; done < count; ++done) {
      scan->include(Scan::of(data[done]));
    }
  }
};

// Leaves out what is not finite.
struct FiniteSegment {
  template <typename Lanes>
  static AIMETPP_ALWAYS_INLINE void run(const float* data, std::int64_t count,
                                        Extremes* extremes) {
    constexpr std::int64_t kWidth = Lanes::kWidth;
    constexpr float kInfinity = std::numeric_limits<float>::infinity();
    using Floats = typename Lanes::Floats;
    const Floats infinity = Floats{} + kInfinity;
    Floats low = infinity;
    Floats high = -infinity;
    std::int64_t done = 0;
    for (; done + kWidth <= count; done += kWidth) {
      Floats x;
      load(x, data + done);
      // Comparisons that a NaN fails; an infinity then counts as the other one,
      // which is no extreme.
      const Floats above = x > -infinity ? x : infinity;
      const Floats below = x < infinity ? x : -infinity;
      low = above < low ? above : low;
      high = below > high ? below : high;
    }
    for (std::int64_t lane = 0; lane < kWidth; ++lane) {
      extremes->include({low[lane], high[lane]});
    }
    for (; done < count; ++done) {
      if (std::isfinite(data[done]))
        extremes->include({data[done], data[done]});
    }
  }
};

}  // namespace

Scan scan_values(const float* data, std::int64_t count, Isa isa) {
  Scan scan;
  lanes_for_isa<ScanSegment>(isa)(data, count, &scan);
  return scan;
}

Extremes finite_extremes(const float* data, std::int64_t count, Isa isa) {
  const Scan scan = scan_values(data, count, isa);
  Extremes extremes = scan.extremes;
  if (!scan.all_finite()) {
    extremes = Extremes();
    lanes_for_isa<FiniteSegment>(isa)(data, count, &extremes);
  }
  extremes.min += 0.0F;
  extremes.max += 0.0F;
  return extremes;
}

}  // namespace aimetpp
