// SPDX-License-Identifier: BSD-3-Clause
#include <algorithm>
#include <array>
#include <cmath>
#include <type_traits>
#include <vector>

#include "core/for_isa.h"
#include "core/quant_math.h"
#include "kernels/cpu/fake_quant_loops.h"
#include "kernels/cpu/float_buffers.h"
#include "kernels/cpu/reciprocals.h"
#include "kernels/cpu/spans.h"
#include "kernels/cpu/storage.h"
#include "kernels/cpu/variants.h"
#include "kernels/fake_quant.h"

namespace aimetpp::kernels::cpu {
namespace {

// span(x, y, n, grid) on 16-bit floats, a buffer of float32 at a time.
template <typename Stored, typename Span, typename Grid>
void span_through_floats(const FloatConversion<Stored>& conversion, Span span,
                         const Stored* x, Stored* y, std::int64_t n,
                         const Grid& grid) {
  std::array<float, kBuffer> buffer;
  for (std::int64_t begin = 0; begin < n; begin += kBuffer) {
    const std::int64_t size = std::min(kBuffer, n - begin);
    conversion.load(x + begin, buffer.data(), size);
    span(buffer.data(), buffer.data(), size, grid);
    conversion.store(buffer.data(), y + begin, size);
  }
}

// span(x, y, n, grid_of(channel)) over all elements.
template <typename Stored, typename Span, typename GridOf>
void run_spans(const ChannelLayout& layout, const Stored* x, Stored* y,
               const ParallelFor& parallel_for, [[maybe_unused]] Isa isa,
               Span span, const GridOf& grid_of) {
  for_spans(layout, parallel_for,
            [&](std::int64_t begin, std::int64_t n, std::int64_t channel) {
              const auto grid = grid_of(channel);
              if constexpr (std::is_invocable_v<Span, const Stored*, Stored*,
                                                std::int64_t, decltype(grid)>) {
                span(x + begin, y + begin, n, grid);
              } else {
                span_through_floats(float_conversion<Stored>(isa), span,
                                    x + begin, y + begin, n, grid);
              }
            });
}

template <typename V>
void transform_variant(const QuantCall& call, const void* x_data, void* y_data,
                       const ParallelFor& parallel_for, Isa isa) {
  using Stored = typename V::Stored;
  using Compute = typename V::Compute;
  const auto* x = static_cast<const Stored*>(x_data);
  auto* y = static_cast<Stored*>(y_data);
  const Grids<Compute> grids(call);
  const GridArrays<Compute> arrays = grids.arrays();
  const ChannelLayout& layout = call.layout;
  const std::int64_t channels = layout.channels;
  if (layout.inner == 1 && channels > 1) {
    const auto row = for_isa<&transform_row<V::kMode, Stored, Compute>>(isa);
    for_rows(layout, parallel_for,
             [&](std::int64_t at) { row(x + at, y + at, channels, arrays); });
    return;
  }
  if constexpr (V::kMode == QuantMode::fake_quantize &&
                std::is_same_v<Compute, float>) {
    Reciprocals reciprocals(arrays, channels, isa);
    if (reciprocals.usable()) {
      reciprocals.narrow(call.before);
      reciprocals.check_products(layout.outer * layout.inner, isa);
      const auto run = [by_product = for_isa<&reciprocal_span<true>>(isa),
                        by_quotient = for_isa<&reciprocal_span<false>>(isa)](
                           const float* from, float* to, std::int64_t n,
                           const Reciprocals::Channel& channel) {
        (channel.by_product ? by_product : by_quotient)(from, to, n,
                                                        channel.grid);
      };
      run_spans(layout, x, y, parallel_for, isa, run,
                [&](std::int64_t c) { return reciprocals.at(c); });
      return;
    }
  }
  // 16-bit floats become float32 beforehand, but not double.
  using Loaded =
      std::conditional_t<std::is_same_v<Compute, float>, float, Stored>;
  if constexpr (V::kMode == QuantMode::fake_quantize) {
    if (!call.before.is_all()) {
      const auto run = [span = for_isa<&clamped_span<Loaded, Compute>>(isa),
                        low = static_cast<Compute>(call.before.low),
                        high = static_cast<Compute>(call.before.high)](
                           const Loaded* from, Loaded* to, std::int64_t n,
                           const AffineGrid<Compute>& grid) {
        span(from, to, n, grid, low, high);
      };
      run_spans(layout, x, y, parallel_for, isa, run,
                [&](std::int64_t c) { return arrays.at(c); });
      return;
    }
  }
  run_spans(layout, x, y, parallel_for, isa,
            for_isa<&transform_span<V::kMode, Loaded, Compute>>(isa),
            [&](std::int64_t c) { return arrays.at(c); });
}

}  // namespace

void transform(const QuantCall& call, const void* x, void* y,
               const ParallelFor& parallel_for, Isa isa) {
  if (call.layout.numel() == 0) return;
  with_variant(call, [&](auto variant) {
    transform_variant<decltype(variant)>(call, x, y, parallel_for, isa);
  });
}

}  // namespace aimetpp::kernels::cpu
