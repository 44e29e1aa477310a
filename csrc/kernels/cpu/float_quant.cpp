// SPDX-License-Identifier: BSD-3-Clause
#include "kernels/float_quant.h"

#include <algorithm>
#include <array>
#include <type_traits>

#include "core/float_grid.h"
#include "core/for_isa.h"
#include "core/inside_interval.h"
#include "kernels/cpu/fake_quant_loops.h"
#include "kernels/cpu/float_buffers.h"
#include "kernels/cpu/spans.h"
#include "kernels/cpu/storage.h"
#include "kernels/cpu/variants.h"

namespace aimetpp::kernels::cpu {
namespace {

// 16-bit floats are computed with as float32.
template <typename Stored>
using ComputeOf =
    std::conditional_t<std::is_same_v<Stored, double>, double, float>;

template <bool scaled, typename Compute>
AIMETPP_ALWAYS_INLINE void round_span(const Compute* x, Compute* y,
                                      std::int64_t n, FloatGrid<Compute> grid,
                                      Compute scale) {
  AIMETPP_INDEPENDENT
  for (std::int64_t i = 0; i < n; ++i) {
    if constexpr (scaled) {
      y[i] = round_to_format(x[i] / scale, grid) * scale;
    } else {
      y[i] = round_to_format(x[i], grid);
    }
  }
}

template <typename Stored>
void quantize_stored(const FloatCall& call, const Stored* x, Stored* y,
                     const ParallelFor& parallel_for, Isa isa) {
  using Compute = ComputeOf<Stored>;
  const auto grid = make_float_grid<Compute>(call.format);
  const auto span = call.scale == nullptr
                        ? for_isa<&round_span<false, Compute>>(isa)
                        : for_isa<&round_span<true, Compute>>(isa);
  for_spans(call.layout, parallel_for,
            [&](std::int64_t begin, std::int64_t n, std::int64_t channel) {
              const Compute scale =
                  call.scale == nullptr ? 1 : call.scale[channel];
              if constexpr (std::is_same_v<Stored, Compute>) {
                span(x + begin, y + begin, n, grid, scale);
              } else {
                const auto conversion = float_conversion<Stored>(isa);
                std::array<float, kBuffer> values;
                for (std::int64_t at = begin; at < begin + n; at += kBuffer) {
                  const std::int64_t size = std::min(kBuffer, begin + n - at);
                  conversion.load(x + at, values.data(), size);
                  span(values.data(), values.data(), size, grid, scale);
                  conversion.store(values.data(), y + at, size);
                }
              }
            });
}

// What is within the range, for one scale.
template <typename Compute>
InsideInterval<Compute> find_range(const FloatGrid<Compute>& grid,
                                   Compute scale) {
  InsideInterval<Compute> range{};
  const auto in_range = [&](Compute x) { return is_in_range(x, scale, grid); };
  // Half a step beyond the largest: the step is the last bit that is kept.
  using Bits = typename FloatGrid<Compute>::Bits;
  const Bits half_step = Bits{1} << (grid.dropped_bits - 1);
  const Compute end =
      bits_as<Compute>(bits_as<Bits>(grid.largest) + half_step) * scale;
  if (!find_interval(-end, end, in_range, &range)) {
    range = {-grid.largest * scale, grid.largest * scale};
  }
  return range;
}

template <typename Stored>
void gradient_stored(const FloatCall& call, const Stored* grad, const Stored* x,
                     Stored* dx, const ParallelFor& parallel_for, Isa isa) {
  using Compute = ComputeOf<Stored>;
  const auto grid = make_float_grid<Compute>(call.format);
  const auto mask = for_isa<&mask_span<Stored, Compute, Compute>>(isa);
  for_spans(call.layout, parallel_for,
            [&](std::int64_t begin, std::int64_t n, std::int64_t channel) {
              const Compute scale =
                  call.scale == nullptr ? 1 : call.scale[channel];
              const InsideInterval<Compute> range = find_range(grid, scale);
              if constexpr (std::is_same_v<Stored, Compute>) {
                mask(grad + begin, x + begin, dx + begin, n, range);
              } else {
                const auto to_floats = float_conversion<Stored>(isa).load;
                std::array<float, kBuffer> values;
                for (std::int64_t at = begin; at < begin + n; at += kBuffer) {
                  const std::int64_t size = std::min(kBuffer, begin + n - at);
                  to_floats(x + at, values.data(), size);
                  mask(grad + at, values.data(), dx + at, size, range);
                }
              }
            });
}

}  // namespace

void float_quantize(const FloatCall& call, const void* x, void* y,
                    const ParallelFor& parallel_for, Isa isa) {
  if (call.layout.numel() == 0) return;
  with_stored(call.storage, [&](auto stored) {
    using Stored = decltype(stored);
    quantize_stored(call, static_cast<const Stored*>(x),
                    static_cast<Stored*>(y), parallel_for, isa);
  });
}

void float_gradient(const FloatCall& call, const void* grad, const void* x,
                    void* dx, const ParallelFor& parallel_for, Isa isa) {
  if (call.layout.numel() == 0) return;
  with_stored(call.storage, [&](auto stored) {
    using Stored = decltype(stored);
    gradient_stored(call, static_cast<const Stored*>(grad),
                    static_cast<const Stored*>(x), static_cast<Stored*>(dx),
                    parallel_for, isa);
  });
}

}  // namespace aimetpp::kernels::cpu
