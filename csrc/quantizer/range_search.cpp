// SPDX-License-Identifier: BSD-3-Clause
#include "quantizer/range_search.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "core/error.h"
#include "core/lanes.h"
#include "core/quant_math.h"

namespace aimetpp::quantizer {
namespace {

// All in float32 and in the order of the reference's tensor operations, so that
// the candidates are its candidates to the last bit.
struct Choice {
  float delta;
  float offset;
};

// The grid with the observed range, zero included and min_scale at least wide.
struct Observed {
  float min;
  float max;
  std::int64_t num_steps;
  float steps;      // num_steps
  float min_delta;  // min_scale(num_steps)
};

Observed observe(const Histogram& histogram, std::int64_t num_steps) {
  Observed observed{};
  observed.num_steps = num_steps;
  observed.steps = static_cast<float>(num_steps);
  observed.min_delta = static_cast<float>(min_scale(num_steps));
  observed.min = std::min(histogram.lo, 0.0F);
  const auto narrowest =
      static_cast<float>(min_scale(num_steps) * static_cast<double>(num_steps));
  observed.max = std::max({histogram.hi, 0.0F, observed.min + narrowest});
  return observed;
}

// delta * k / (count - 1), k = 1..count.
std::vector<float> fractions(float delta, int count) {
  std::vector<float> deltas;
  for (int k = 1; k <= count; ++k) {
    deltas.push_back(delta * static_cast<float>(k) /
                     static_cast<float>(count - 1));
  }
  return deltas;
}

std::vector<Choice> asymmetric_choices(const Observed& observed,
                                       const SearchSettings& settings) {
  const float max_delta = (observed.max - observed.min) / observed.steps;
  const float observed_offset = std::rint(observed.min / max_delta);
  const float lowest = max_delta * observed_offset;
  const float highest = lowest + max_delta * observed.steps;
  const auto num_steps = static_cast<double>(observed.num_steps);

  std::vector<float> offsets;
  const int num_offsets = static_cast<int>(
      std::min<std::int64_t>(observed.num_steps + 2, settings.offsets));
  const double step = num_steps / (num_offsets - 2);
  for (int i = 0; i < num_offsets - 1; ++i) {
    offsets.push_back(std::rint(static_cast<float>(-num_steps + i * step)));
  }
  offsets.push_back(observed_offset);

  std::vector<Choice> choices;
  for (const float delta : fractions(max_delta, settings.asymmetric_deltas)) {
    for (const float offset : offsets) {
      const float unclamped = delta * offset;
      const float min = std::max(lowest, unclamped);
      const float max = std::min(highest, unclamped + delta * observed.steps);
      const float clamped =
          std::max((max - min) / observed.steps, observed.min_delta);
      choices.push_back({clamped, std::rint(min / clamped)});
    }
  }
  return choices;
}

// One offset, and deltas up to max_delta and one step beyond.
std::vector<Choice> fixed_offset_choices(float max_delta, float offset,
                                         const Observed& observed,
                                         const SearchSettings& settings) {
  std::vector<Choice> choices;
  for (const float delta : fractions(max_delta, settings.symmetric_deltas)) {
    choices.push_back({std::max(delta, observed.min_delta), offset});
  }
  return choices;
}

// The bins that hold values, those farthest from the middle first: that is
// where a range that clips too much shows early. Padded with bins of count
// zero, which add no error, to a multiple of kLanes.
struct Bins {
  std::vector<float> midpoints;
  std::vector<float> counts;
};

constexpr std::size_t kLanes = 16;
constexpr std::size_t kBlock = 64;  // bins between two looks at the limit

bool any_filled(const std::vector<double>& counts, std::size_t first,
                std::size_t last) {
  std::uint64_t bits = 0;
  for (std::size_t bin = first; bin < last; ++bin) {
    bits |= std::bit_cast<std::uint64_t>(counts[bin]);
  }
  return bits != 0;
}

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

// Scaled by a power of two: the results are the same to the last bit, but
// squares of very large or small values neither overflow nor vanish.
Bins filled_bins(const Histogram& histogram, float scale) {
  const std::size_t size = histogram.counts.size();
  const Midpoints midpoints(histogram);
  Bins bins;
  bins.midpoints.resize(size + kLanes);
  bins.counts.resize(size + kLanes);
  std::size_t filled = 0;
  // An empty bin is overwritten by the next: mistaken guesses of which are
  // empty would cost more than writing all.
  const auto add = [&](std::size_t bin) {
    bins.midpoints[filled] = midpoints.of(bin) * scale;
    bins.counts[filled] = static_cast<float>(histogram.counts[bin]);
    filled += static_cast<std::size_t>(histogram.counts[bin] != 0);
  };
  std::size_t first = 0;
  std::size_t last = size;
  while (first < last) {
    // A few at a time from each end.
    const std::size_t front = std::min(first + kLanes, last);
    if (any_filled(histogram.counts, first, front)) {
      for (std::size_t bin = first; bin < front; ++bin) add(bin);
    }
    first = front;
    const std::size_t back = std::max(last, first + kLanes) - kLanes;
    if (any_filled(histogram.counts, back, last)) {
      for (std::size_t bin = last; bin-- > back;) add(bin);
    }
    last = back;
  }
  const std::size_t padded = (filled + kLanes - 1) / kLanes * kLanes;
  bins.midpoints.resize(padded);
  bins.counts.resize(padded);
  std::fill(bins.midpoints.begin() + static_cast<std::ptrdiff_t>(filled),
            bins.midpoints.end(), 0.0F);
  std::fill(bins.counts.begin() + static_cast<std::ptrdiff_t>(filled),
            bins.counts.end(), 0.0F);
  return bins;
}

// What the error of one bin depends on beside its midpoint and count.
struct Quantizer {
  Choice choice;
  float steps;
  float clipping_weight;
};

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

// *noise = the sum of count * (fake-quantized midpoint - midpoint)^2, or
// kTooNoisy once it is known to exceed `limit`.
struct SumErrors {
  template <typename Lanes>
  static AIMETPP_ALWAYS_INLINE void run(const Bins* bins,
                                        const Quantizer* quantizer,
                                        double limit, double* noise) {
    using Floats = typename Lanes::Floats;
    using Doubles = typename Lanes::HalfDoubles;
    constexpr auto kWidth = static_cast<std::size_t>(Lanes::kWidth);
    const float* midpoints = bins->midpoints.data();
    const float* counts = bins->counts.data();
    const std::size_t size = bins->counts.size();
    const Choice choice = quantizer->choice;
    const Floats zero{};
    const Floats steps = zero + quantizer->steps;
    const Floats weight = zero + quantizer->clipping_weight;
    // Clipped just outside of the grid, and so still seen to be outside.
    const Floats before = zero - 1.0F;
    const Floats behind = steps + 1.0F;
    Doubles totals[2 * kLanes / kWidth] = {};
    double total = 0;
    for (std::size_t start = 0; start < size; start += kBlock) {
      const std::size_t end = std::min(start + kBlock, size);
      for (std::size_t i = start; i < end; i += kLanes) {
        for (std::size_t part = 0; part < kLanes / kWidth; ++part) {
          Floats x;
          Floats number;
          load(x, midpoints + i + part * kWidth);
          load(number, counts + i + part * kWidth);
          Floats q = x / choice.delta - choice.offset;
          q = q < before ? before : q;
          q = q > behind ? behind : q;
          q = (q + kRounder) - kRounder;
          const Floats on_grid = q < zero ? zero : (q > steps ? steps : q);
          const Floats difference =
              (on_grid + choice.offset) * choice.delta - x;
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
      if (total > limit) {
        *noise = kTooNoisy;
        return;
      }
    }
    *noise = total;
  }
};

// The same for grids too fine for kRounder.
void sum_errors_of_fine_grid(const Bins* bins, const Quantizer* quantizer,
                             double limit, double* noise) {
  const Choice choice = quantizer->choice;
  double total = 0;
  for (std::size_t i = 0; i < bins->counts.size(); ++i) {
    const float x = bins->midpoints[i];
    const float q = std::rint(x / choice.delta - choice.offset);
    const float on_grid = std::clamp(q, 0.0F, quantizer->steps);
    const float difference = (on_grid + choice.offset) * choice.delta - x;
    const float error = difference * difference * bins->counts[i];
    total += double{q == on_grid ? error : error * quantizer->clipping_weight};
  }
  *noise = total > limit ? kTooNoisy : total;
}

float power_of_two_near_inverse(float magnitude) {
  return magnitude > 0 ? std::ldexp(1.0F, std::min(-std::ilogb(magnitude), 126))
                       : 1.0F;
}

// The first choice of least noise. They are tried from the most promising on,
// each given up as soon as it is worse than the best so far: the result is that
// of trying all.
Choice best_choice(const std::vector<Choice>& choices, std::size_t promising,
                   const Histogram& histogram, float steps,
                   float clipping_weight, Isa isa) {
  const float scale = power_of_two_near_inverse(
      std::max(std::abs(histogram.lo), std::abs(histogram.hi)));
  const Bins bins = filled_bins(histogram, scale);
  const bool fine = !(steps + 1 <= kLargestRounded);
  const auto sum_errors =
      fine ? &sum_errors_of_fine_grid : lanes_for_isa<SumErrors>(isa);
  std::size_t best = promising;
  double least = kTooNoisy;
  const auto try_choice = [&](std::size_t index) {
    const Choice& choice = choices[index];
    const Quantizer quantizer{
        {choice.delta * scale, choice.offset}, steps, clipping_weight};
    double noise = 0;
    sum_errors(&bins, &quantizer, least, &noise);
    if (noise < least || (noise == least && index < best)) {
      least = noise;
      best = index;
    }
  };
  for (std::size_t index = promising + 1; index-- > 0;) try_choice(index);
  for (std::size_t index = promising + 1; index < choices.size(); ++index) {
    try_choice(index);
  }
  return choices[best];
}

Range range_of(const Choice& choice, float steps) {
  const float min = choice.offset * choice.delta + 0.0F;  // never -0
  const float max = min + steps * choice.delta;
  return {double{min}, double{max}};
}

// The least e with 2^e >= value > 0.
int exponent_from(double value) {
  int exponent = 0;
  const double mantissa = std::frexp(value, &exponent);
  return mantissa == 0.5 ? exponent - 1 : exponent;
}

}  // namespace

Range search_range(const Histogram& histogram, int bitwidth, Symmetry symmetry,
                   const SearchSettings& settings, Isa isa) {
  const QuantGrid grid = grid_of_range(
      {double{histogram.lo}, double{histogram.hi}}, bitwidth, symmetry);
  const Observed observed = observe(histogram, grid.num_steps());
  std::vector<Choice> choices;
  // The choice nearest to all of the observed range.
  std::size_t whole_range = 0;
  if (symmetry == Symmetry::asymmetric) {
    choices = asymmetric_choices(observed, settings);
    whole_range =
        choices.size() - 1 -
        choices.size() / static_cast<std::size_t>(settings.asymmetric_deltas);
  } else if (grid.qmin < 0) {
    const float max_delta =
        2 * std::max(observed.max, -observed.min) / observed.steps;
    const std::int64_t below = observed.num_steps - observed.num_steps / 2;
    choices = fixed_offset_choices(max_delta, static_cast<float>(-below),
                                   observed, settings);
    whole_range = choices.size() / 2 - 1;  // max_delta / 2
  } else {
    choices = fixed_offset_choices(observed.max / observed.steps, 0.0F,
                                   observed, settings);
    whole_range = choices.size() - 2;
  }
  const Choice best =
      best_choice(choices, whole_range, histogram, observed.steps,
                  settings.clipping_weight, isa);
  return range_of(best, observed.steps);
}

Range search_power_of_two_range(const Histogram& histogram, int bitwidth,
                                Symmetry symmetry, Isa isa) {
  if (symmetry == Symmetry::asymmetric) {
    raise_value_error(
        "powers of two are searched for symmetric grids, got an asymmetric "
        "one");
  }
  const QuantGrid grid = grid_of_range(
      {double{histogram.lo}, double{histogram.hi}}, bitwidth, symmetry);
  const std::int64_t above =
      grid.qmin < 0 ? grid.num_steps() / 2 : grid.num_steps();
  const std::int64_t below = grid.num_steps() - above;
  double unclipped = double{histogram.hi} / static_cast<double>(above);
  if (below > 0) {
    unclipped =
        std::max(unclipped, double{-histogram.lo} / static_cast<double>(below));
  }
  const int lowest = exponent_from(min_scale(grid.num_steps()));
  const int highest =
      unclipped > 0 ? std::max(exponent_from(unclipped), lowest) : lowest;
  constexpr int kTried = 32;
  std::vector<Choice> choices;
  for (int e = std::max(lowest, highest - kTried + 1); e <= highest; ++e) {
    choices.push_back({std::ldexp(1.0F, e), static_cast<float>(-below)});
  }
  const auto steps = static_cast<float>(grid.num_steps());
  return range_of(
      best_choice(choices, choices.size() - 1, histogram, steps, 1.0F, isa),
      steps);
}

}  // namespace aimetpp::quantizer
