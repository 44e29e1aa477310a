// SPDX-License-Identifier: BSD-3-Clause
#include "quantizer/range_search.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "core/error.h"
#include "core/quant_math.h"
#include "quantizer/noise.h"

namespace aimetpp::quantizer {
namespace {

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
      choices[least_noise(choices, whole_range, histogram,
                          {observed.steps, settings.clipping_weight}, isa)];
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
  return range_of(choices[least_noise(choices, choices.size() - 1, histogram,
                                      {steps, 1.0F}, isa)],
                  steps);
}

}  // namespace aimetpp::quantizer
