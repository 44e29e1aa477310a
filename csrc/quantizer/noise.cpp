// SPDX-License-Identifier: BSD-3-Clause
#include "quantizer/noise.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "core/lanes.h"

namespace aimetpp::quantizer {
namespace {

// The bins that hold values, those farthest from the middle first: that is
// where a range that clips too much shows early. Padded with bins of count
// zero, which add no error, to a multiple of kLanes.
struct Bins {
  std::vector<float> midpoints;  // times scale
  std::vector<float> counts;
  // A power of two: the results are the same to the last bit, but squares of
  // very large or small values neither overflow nor vanish.
  float scale;
};

constexpr std::size_t kLanes = 16;

struct Candidates {
  const std::vector<Choice>* choices;
  std::size_t promising;
  Weighing weighing;
};

// Of all bins of a histogram; a point's lie in one place.
struct Midpoints {
  explicit Midpoints(const Histogram& histogram) : first(histogram.lo) {
    if (histogram.is_point()) return;
    width = histogram.edge(1) - histogram.edge(0);
    first = histogram.edge(0) + width / 2;
  }
  [[nodiscard]] float of(std::size_t bin) const {
    return first + width * static_cast<float>(bin);
  }

  float first;
  float width = 0;
};

float power_of_two_near_inverse(float magnitude) {
  return magnitude > 0 ? std::ldexp(1.0F, std::min(-std::ilogb(magnitude), 126))
                       : 1.0F;
}

Bins filled_bins(const Histogram& histogram) {
  const std::size_t size = histogram.counts.size();
  const Midpoints midpoints(histogram);
  Bins bins;
  bins.scale = power_of_two_near_inverse(
      std::max(std::abs(histogram.lo), std::abs(histogram.hi)));
  bins.midpoints.resize(size + kLanes);
  bins.counts.resize(size + kLanes);
  std::size_t filled = 0;
  // An empty bin is overwritten by the next: mistaken guesses of which are
  // empty would cost more than writing all.
  const auto add = [&](std::size_t bin) {
    bins.midpoints[filled] = midpoints.of(bin) * bins.scale;
    bins.counts[filled] = static_cast<float>(histogram.counts[bin]);
    filled += static_cast<std::size_t>(histogram.counts[bin] != 0);
  };
  std::size_t first = 0;
  std::size_t last = size;
  while (first < last) {
    // A few at a time from each end.
    const std::size_t front = std::min(first + kLanes, last);
    if (histogram.any_filled(first, front)) {
      for (std::size_t bin = first; bin < front; ++bin) add(bin);
    }
    first = front;
    const std::size_t back = std::max(last, first + kLanes) - kLanes;
    if (histogram.any_filled(back, last)) {
      for (std::size_t bin = last; bin-- > back;) add(bin);
    }
    last = back;
  }
  const std::size_t padded = (filled + kLanes - 1) / kLanes * kLanes;
  for (std::vector<float>* values : {&bins.midpoints, &bins.counts}) {
    values->resize(filled);
    values->resize(padded, 0.0F);
  }
  return bins;
}

// Adding and taking away 1.5 * 2^23 rounds half to even what is below 2^22 in
// magnitude, with two instructions that every processor has for vectors.
constexpr float kRounder = 0x1.8p23F;
constexpr float kLargestRounded = 0x1p22F;

constexpr double kTooNoisy = std::numeric_limits<double>::infinity();

// The sum of kLanes doubles, halves added to halves: an order that does not
// depend on the vector width.
template <typename Doubles>
AIMETPP_ALWAYS_INLINE double sum_of(Doubles* parts) {
  constexpr std::size_t kWidth = sizeof(Doubles) / sizeof(double);
  for (std::size_t half = kLanes / kWidth / 2; half > 0; half /= 2) {
    for (std::size_t i = 0; i < half; ++i) parts[i] += parts[i + half];
  }
  Doubles sums = parts[0];
  if constexpr (kWidth == 8) {
    sums += __builtin_shufflevector(sums, sums, 4, 5, 6, 7, 0, 1, 2, 3);
    sums += __builtin_shufflevector(sums, sums, 2, 3, 0, 1, 6, 7, 4, 5);
  } else if constexpr (kWidth == 4) {
    sums += __builtin_shufflevector(sums, sums, 2, 3, 0, 1);
  }
  return sums[0] + sums[1];
}

// The choice of least noise, and of those as good the first. They are tried
// from the most promising on, each given up as soon as it is worse than the
// best so far: the result is that of trying all. `noise_of(choice, limit)` may
// give kTooNoisy for what exceeds the limit.
template <typename NoiseOf>
AIMETPP_ALWAYS_INLINE std::size_t first_of_least(const Candidates& candidates,
                                                 const NoiseOf& noise_of) {
  const std::size_t size = candidates.choices->size();
  std::size_t best = candidates.promising;
  double least = kTooNoisy;
  for (std::size_t tried = 0; tried < size; ++tried) {
    const std::size_t index =
        tried <= candidates.promising ? candidates.promising - tried : tried;
    const double noise = noise_of((*candidates.choices)[index], least);
    if (noise < least || (noise == least && index < best)) {
      least = noise;
      best = index;
    }
  }
  return best;
}

// Noise: the sum over the bins of count * (fake-quantized midpoint -
// midpoint)^2, in double and in a fixed order.
struct FindLeastNoise {
  template <typename Lanes>
  static AIMETPP_ALWAYS_INLINE void run(const Bins* bins,
                                        const Candidates* candidates,
                                        std::size_t* best) {
    using Floats = typename Lanes::Floats;
    using Doubles = typename Lanes::HalfDoubles;
    constexpr auto kWidth = static_cast<std::size_t>(Lanes::kWidth);
    constexpr std::size_t kBlock = 4 * kLanes;  // from one look at the limit on
    const float* midpoints = bins->midpoints.data();
    const float* counts = bins->counts.data();
    const std::size_t size = bins->counts.size();
    const Floats zero{};
    const Floats steps = zero + candidates->weighing.steps;
    const Floats weight = zero + candidates->weighing.clipping_weight;
    // Clipped just outside of the grid, and so still seen to be outside.
    const Floats before = zero - 1.0F;
    const Floats behind = steps + 1.0F;
    const auto noise_of = [&](const Choice& choice,
                              double limit) __attribute__((always_inline)) {
      const Floats delta = zero + choice.delta * bins->scale;
      const Floats offset = zero + choice.offset;
      Doubles totals[2 * kLanes / kWidth] = {};
      double total = 0;
      std::size_t i = 0;
      // A range that clips too much shows in the first few.
      for (std::size_t end = kLanes; i < size; end += kBlock) {
        for (; i < std::min(end, size); i += kLanes) {
          for (std::size_t part = 0; part < kLanes / kWidth; ++part) {
            Floats x;
            Floats number;
            load(x, midpoints + i + part * kWidth);
            load(number, counts + i + part * kWidth);
            Floats q = x / delta - offset;
            q = q < before ? before : q;
            q = q > behind ? behind : q;
            q = (q + kRounder) - kRounder;
            const Floats on_grid = q < zero ? zero : (q > steps ? steps : q);
            const Floats difference = (on_grid + offset) * delta - x;
            Floats error = difference * difference * number;
            error = q == on_grid ? error : error * weight;
            const auto all =
                __builtin_convertvector(error, typename Lanes::Doubles);
            Doubles halves[2];
            std::memcpy(halves, &all, sizeof(all));
            totals[2 * part] += halves[0];
            totals[2 * part + 1] += halves[1];
          }
        }
        Doubles sums[2 * kLanes / kWidth];
        std::memcpy(sums, totals, sizeof(totals));
        total = sum_of(sums);
        if (total > limit) return kTooNoisy;
      }
      return total;
    };
    *best = first_of_least(*candidates, noise_of);
  }
};

// The same for grids too fine for kRounder.
std::size_t find_least_noise_of_fine_grids(const Bins& bins,
                                           const Candidates& candidates) {
  const auto [steps, clipping_weight] = candidates.weighing;
  return first_of_least(candidates, [&](const Choice& choice, double limit) {
    const float delta = choice.delta * bins.scale;
    double total = 0;
    for (std::size_t i = 0; i < bins.counts.size(); ++i) {
      const float x = bins.midpoints[i];
      const float q = std::rint(x / delta - choice.offset);
      const float on_grid = std::clamp(q, 0.0F, steps);
      const float difference = (on_grid + choice.offset) * delta - x;
      const float error = difference * difference * bins.counts[i];
      total += double{q == on_grid ? error : error * clipping_weight};
    }
    return total > limit ? kTooNoisy : total;
  });
}

}  // namespace

std::size_t least_noise(const std::vector<Choice>& choices,
                        std::size_t promising, const Histogram& histogram,
                        const Weighing& weighing, Isa isa) {
  const Bins bins = filled_bins(histogram);
  const Candidates candidates{&choices, promising, weighing};
  if (!(weighing.steps + 1 <= kLargestRounded)) {
    return find_least_noise_of_fine_grids(bins, candidates);
  }
  std::size_t best = 0;
  lanes_for_isa<FindLeastNoise>(isa)(&bins, &candidates, &best);
  return best;
}

}  // namespace aimetpp::quantizer
