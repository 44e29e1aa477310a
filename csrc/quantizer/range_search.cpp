// SPDX-License-Identifier: BSD-3-Clause
#include "quantizer/range_search.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "core/quant_math.h"
#include "quantizer/lanes.h"

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

// The bins that hold values. `counts` of the last, partial block are padded
// with zeros: such bins add no error.
struct Bins {
  std::vector<float> midpoints;
  std::vector<float> counts;
};

constexpr std::size_t kBlock = 64;

// Scaled by a power of two: the results are the same to the last bit, but
// squares of very large or small values neither overflow nor vanish.
Bins filled_bins(const Histogram& histogram, float scale) {
  Bins bins;
  const float width = histogram.edge(1) - histogram.edge(0);
  const float first = histogram.edge(0) + width / 2;
  for (int bin = 0; bin < histogram.num_bins(); ++bin) {
    const double count = histogram.counts[static_cast<std::size_t>(bin)];
    if (count == 0) continue;
    const float midpoint = histogram.is_point()
                               ? histogram.lo
                               : first + width * static_cast<float>(bin);
    bins.midpoints.push_back(midpoint * scale);
    bins.counts.push_back(static_cast<float>(count));
  }
  const std::size_t blocks = (bins.counts.size() + kBlock - 1) / kBlock;
  bins.midpoints.resize(blocks * kBlock, 0.0F);
  bins.counts.resize(blocks * kBlock, 0.0F);
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

// errors[0..kBlock): count * (fake-quantized midpoint - midpoint)^2.
struct BlockErrors {
  template <typename Lanes>
  static AIMETPP_ALWAYS_INLINE void run(const float* midpoints,
                                        const float* counts,
                                        const Quantizer* quantizer,
                                        float* errors) {
    using Floats = typename Lanes::Floats;
    const Choice choice = quantizer->choice;
    const Floats zero{};
    const Floats steps = zero + quantizer->steps;
    const Floats weight = zero + quantizer->clipping_weight;
    // Clipped just outside of the grid, and so still seen to be outside.
    const Floats before = zero - 1.0F;
    const Floats behind = steps + 1.0F;
    constexpr auto kWidth = static_cast<std::size_t>(Lanes::kWidth);
    for (std::size_t i = 0; i < kBlock; i += kWidth) {
      Floats x;
      Floats count;
      load(x, midpoints + i);
      load(count, counts + i);
      Floats q = x / choice.delta - choice.offset;
      q = q < before ? before : q;
      q = q > behind ? behind : q;
      q = (q + kRounder) - kRounder;
      const Floats on_grid = q < zero ? zero : (q > steps ? steps : q);
      const Floats difference = (on_grid + choice.offset) * choice.delta - x;
      Floats error = difference * difference * count;
      error = q == on_grid ? error : error * weight;
      store(error, errors + i);
    }
  }
};

// The same for grids too fine for kRounder.
void block_errors_of_fine_grid(const float* midpoints, const float* counts,
                               const Quantizer& quantizer, float* errors) {
  const Choice choice = quantizer.choice;
  for (std::size_t i = 0; i < kBlock; ++i) {
    const float x = midpoints[i];
    const float q = std::rint(x / choice.delta - choice.offset);
    const float on_grid = std::clamp(q, 0.0F, quantizer.steps);
    const float difference = (on_grid + choice.offset) * choice.delta - x;
    const float error = difference * difference * counts[i];
    errors[i] = q == on_grid ? error : error * quantizer.clipping_weight;
  }
}

// The noise over all bins; infinity once it is known to exceed `limit`. Summed
// in double in a fixed order, whatever the vector width.
double noise_of(const Bins& bins, const Quantizer& quantizer, double limit) {
  const bool fine = !(quantizer.steps + 1 <= kLargestRounded);
  std::array<float, kBlock> errors{};
  std::array<double, 4> sums{};
  double total = 0;
  for (std::size_t start = 0; start < bins.counts.size(); start += kBlock) {
    const float* midpoints = bins.midpoints.data() + start;
    const float* counts = bins.counts.data() + start;
    if (fine) {
      block_errors_of_fine_grid(midpoints, counts, quantizer, errors.data());
    } else {
      run_loop<BlockErrors>(midpoints, counts, &quantizer, errors.data());
    }
    for (std::size_t i = 0; i < kBlock; i += sums.size()) {
      for (std::size_t lane = 0; lane < sums.size(); ++lane) {
        sums[lane] += double{errors[i + lane]};
      }
    }
    total = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    if (total > limit) return std::numeric_limits<double>::infinity();
  }
  return total;
}

float power_of_two_near_inverse(float magnitude) {
  return magnitude > 0 ? std::ldexp(1.0F, std::min(-std::ilogb(magnitude), 126))
                       : 1.0F;
}

Choice best_choice(const std::vector<Choice>& choices,
                   const Histogram& histogram, float steps,
                   float clipping_weight) {
  const float scale = power_of_two_near_inverse(
      std::max(std::abs(histogram.lo), std::abs(histogram.hi)));
  const Bins bins = filled_bins(histogram, scale);
  const auto try_choice = [&](const Choice& choice, double limit) {
    return noise_of(
        bins, {{choice.delta * scale, choice.offset}, steps, clipping_weight},
        limit);
  };
  Choice best = choices.front();
  double least = std::numeric_limits<double>::infinity();
  // A bound to begin with: the last choice is about the observed range, and
  // most of the others can be given up early against it.
  const double bound = try_choice(choices.back(), least);
  for (const Choice& choice : choices) {
    const double noise = try_choice(choice, std::min(bound, least));
    if (noise < least) {
      least = noise;
      best = choice;
    }
  }
  return best;
}

}  // namespace

Range search_range(const Histogram& histogram, int bitwidth, Symmetry symmetry,
                   const SearchSettings& settings) {
  const QuantGrid grid = grid_of_range(
      {double{histogram.lo}, double{histogram.hi}}, bitwidth, symmetry);
  const Observed observed = observe(histogram, grid.num_steps());
  std::vector<Choice> choices;
  if (symmetry == Symmetry::asymmetric) {
    choices = asymmetric_choices(observed, settings);
  } else if (grid.qmin < 0) {
    const float max_delta =
        2 * std::max(observed.max, -observed.min) / observed.steps;
    const std::int64_t below = observed.num_steps - observed.num_steps / 2;
    choices = fixed_offset_choices(max_delta, static_cast<float>(-below),
                                   observed, settings);
  } else {
    choices = fixed_offset_choices(observed.max / observed.steps, 0.0F,
                                   observed, settings);
  }
  const Choice best =
      best_choice(choices, histogram, observed.steps, settings.clipping_weight);
  const float min = best.offset * best.delta + 0.0F;  // never -0
  const float max = min + observed.steps * best.delta;
  return {double{min}, double{max}};
}

}  // namespace aimetpp::quantizer
