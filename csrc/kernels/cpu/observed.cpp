// SPDX-License-Identifier: BSD-3-Clause
#include <algorithm>
#include <array>
#include <limits>
#include <mutex>
#include <type_traits>

#include "core/lanes.h"
#include "kernels/cpu/float_buffers.h"
#include "kernels/cpu/spans.h"
#include "kernels/cpu/storage.h"
#include "kernels/cpu/variants.h"
#include "kernels/fake_quant.h"

namespace aimetpp::kernels::cpu {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Elements that are looked at and then transformed: in float32 a quarter of a
// second-level cache.
constexpr std::int64_t kChunk = 32768;

struct Extremes {
  float least = kInfinity;
  float largest = -kInfinity;

  void include(float value) {
    if (value < least) least = value;
    if (value > largest) largest = value;
  }
};

struct FindExtremes {
  template <typename Lanes>
  static AIMETPP_ALWAYS_INLINE void run(const float* x, std::int64_t n,
                                        Extremes* extremes) {
    constexpr std::int64_t kWidth = Lanes::kWidth;
    using Floats = typename Lanes::Floats;
    const Floats infinity = Floats{} + kInfinity;
    Floats least = infinity;
    Floats largest = -infinity;
    std::int64_t done = 0;
    for (; done + kWidth <= n; done += kWidth) {
      Floats value;
      aimetpp::load(value, x + done);
      // Comparisons that a NaN fails.
      const Floats low = value > -infinity ? value : infinity;
      const Floats high = value < infinity ? value : -infinity;
      least = low < least ? low : least;
      largest = high > largest ? high : largest;
    }
    for (std::int64_t lane = 0; lane < kWidth; ++lane) {
      if (least[lane] < kInfinity) extremes->include(least[lane]);
      if (largest[lane] > -kInfinity) extremes->include(largest[lane]);
    }
    for (; done < n; ++done) {
      if (x[done] > -kInfinity && x[done] < kInfinity) {
        extremes->include(x[done]);
      }
    }
  }
};

template <typename Stored>
void find_extremes(const Stored* x, std::int64_t n, Isa isa,
                   Extremes* extremes) {
  const auto find = lanes_for_isa<FindExtremes>(isa);
  if constexpr (std::is_same_v<Stored, float>) {
    find(x, n, extremes);
  } else {
    std::array<float, kBuffer> values;
    for (std::int64_t begin = 0; begin < n; begin += kBuffer) {
      const std::int64_t size = std::min(kBuffer, n - begin);
      if constexpr (std::is_same_v<Stored, double>) {
        for (std::int64_t i = 0; i < size; ++i) {
          values[static_cast<std::size_t>(i)] =
              static_cast<float>(x[begin + i]);
        }
      } else {
        float_conversion<Stored>(isa).load(x + begin, values.data(), size);
      }
      find(values.data(), size, extremes);
    }
  }
}

}  // namespace

void transform_observed(const QuantCall& call, const void* x_data, void* y_data,
                        float* least, float* largest,
                        const ParallelFor& parallel_for, Isa isa) {
  Extremes all;
  std::mutex mutex;
  with_stored(call.storage, [&](auto stored) {
    using Stored = decltype(stored);
    const auto* x = static_cast<const Stored*>(x_data);
    auto* y = static_cast<Stored*>(y_data);
    parallel_for(call.layout.numel(), kGrain,
                 [&](std::int64_t begin, std::int64_t end) {
                   Extremes own;
                   QuantCall part = call;
                   for (; begin < end; begin += part.layout.inner) {
                     part.layout = {1, 1, std::min(kChunk, end - begin)};
                     find_extremes(x + begin, part.layout.inner, isa, &own);
                     transform(part, x + begin, y + begin, serial_for, isa);
                   }
                   const std::scoped_lock lock(mutex);
                   all.least = std::min(all.least, own.least);
                   all.largest = std::max(all.largest, own.largest);
                 });
  });
  *least = all.least;
  *largest = all.largest;
}

}  // namespace aimetpp::kernels::cpu
