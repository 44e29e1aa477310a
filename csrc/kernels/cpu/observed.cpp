// SPDX-License-Identifier: BSD-3-Clause
#include <algorithm>
#include <array>
#include <mutex>
#include <type_traits>

#include "core/extremes.h"
#include "kernels/cpu/float_buffers.h"
#include "kernels/cpu/spans.h"
#include "kernels/cpu/storage.h"
#include "kernels/cpu/variants.h"
#include "kernels/fake_quant.h"

namespace aimetpp::kernels::cpu {
namespace {

// Elements that are looked at and then transformed: in float32 a quarter of a
// second-level cache.
constexpr std::int64_t kChunk = 32768;

template <typename Stored>
Extremes extremes_of(const Stored* x, std::int64_t n, Isa isa) {
  if constexpr (std::is_same_v<Stored, float>) {
    return finite_extremes(x, n, isa);
  } else {
    Extremes extremes;
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
      extremes.include(finite_extremes(values.data(), size, isa));
    }
    return extremes;
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
    parallel_for(
        call.layout.numel(), kGrain, [&](std::int64_t begin, std::int64_t end) {
          Extremes own;
          QuantCall part = call;
          for (; begin < end; begin += part.layout.inner) {
            part.layout = {1, 1, std::min(kChunk, end - begin)};
            own.include(extremes_of(x + begin, part.layout.inner, isa));
            transform(part, x + begin, y + begin, serial_for, isa);
          }
          const std::scoped_lock lock(mutex);
          all.include(own);
        });
  });
  *least = all.min;
  *largest = all.max;
}

}  // namespace aimetpp::kernels::cpu
