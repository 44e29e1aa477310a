// SPDX-License-Identifier: BSD-3-Clause
#include <algorithm>
#include <array>
#include <type_traits>
#include <vector>

#include "core/for_isa.h"
#include "core/inside_interval.h"
#include "kernels/cpu/fake_quant_loops.h"
#include "kernels/cpu/float_buffers.h"
#include "kernels/cpu/spans.h"
#include "kernels/cpu/storage.h"
#include "kernels/cpu/variants.h"
#include "kernels/fake_quant.h"

namespace aimetpp::kernels::cpu {
namespace {

// The interval of each channel; empty where one is not found.
template <typename Compute>
std::vector<InsideInterval<Compute>> find_intervals(
    const GridArrays<Compute>& grids, std::int64_t channels) {
  std::vector<InsideInterval<Compute>> found(
      static_cast<std::size_t>(channels));
  for (std::int64_t c = 0; c < channels; ++c) {
    if (!find_inside(grids.at(c), &found[static_cast<std::size_t>(c)])) {
      return {};
    }
  }
  return found;
}

// Where not every channel has an interval: the formula itself.
template <typename V>
void by_formula(const QuantCall& call, const Grids<typename V::Compute>& grids,
                const typename V::Stored* grad, const typename V::Stored* x,
                typename V::Stored* dx, const ParallelFor& parallel_for) {
  using Compute = typename V::Compute;
  const auto arrays = grids.arrays();
  for_spans(call.layout, parallel_for,
            [&](std::int64_t begin, std::int64_t n, std::int64_t c) {
              const AffineGrid<Compute> grid = arrays.at(c);
              for (std::int64_t i = begin; i < begin + n; ++i) {
                const auto element = aimetpp::gradient<V::kMode>(
                    load<Compute>(grad[i]), load<Compute>(x[i]), grid);
                dx[i] = store<typename V::Stored>(element.x);
              }
            });
}

// One interval for each stretch; 16-bit floats are compared as float32.
template <typename V, typename Intervals>
void by_spans(const QuantCall& call, const Intervals& intervals,
              const typename V::Stored* grad, const typename V::Stored* x,
              typename V::Stored* dx, const ParallelFor& parallel_for,
              Isa isa) {
  using Stored = typename V::Stored;
  using Compute = typename V::Compute;
  constexpr bool kConverts =
      std::is_same_v<Compute, float> && !std::is_same_v<Stored, float>;
  using Loaded = std::conditional_t<kConverts, float, Stored>;
  const auto mask = for_isa<&mask_span<Stored, Loaded, Compute>>(isa);
  for_spans(call.layout, parallel_for,
            [&](std::int64_t begin, std::int64_t n, std::int64_t c) {
              const auto inside = intervals[static_cast<std::size_t>(c)];
              if constexpr (kConverts) {
                const auto to_floats = float_conversion<Stored>(isa).load;
                std::array<float, kBuffer> values;
                for (std::int64_t at = begin; at < begin + n; at += kBuffer) {
                  const std::int64_t size = std::min(kBuffer, begin + n - at);
                  to_floats(x + at, values.data(), size);
                  mask(grad + at, values.data(), dx + at, size, inside);
                }
              } else {
                mask(grad + begin, x + begin, dx + begin, n, inside);
              }
            });
}

template <typename V>
void input_gradient_variant(const QuantCall& call, const void* grad_data,
                            const void* x_data, void* dx_data,
                            const ParallelFor& parallel_for, Isa isa) {
  using Stored = typename V::Stored;
  using Compute = typename V::Compute;
  const auto* grad = static_cast<const Stored*>(grad_data);
  const auto* x = static_cast<const Stored*>(x_data);
  auto* dx = static_cast<Stored*>(dx_data);
  const Grids<Compute> grids(call);
  const std::int64_t channels = call.layout.channels;
  const auto intervals = find_intervals(grids.arrays(), channels);
  if (intervals.empty()) {
    by_formula<V>(call, grids, grad, x, dx, parallel_for);
  } else if (call.layout.inner == 1 && channels > 1) {
    const auto row = for_isa<&mask_row<Stored, Compute>>(isa);
    for_rows(call.layout, parallel_for, [&](std::int64_t at) {
      row(grad + at, x + at, dx + at, channels, intervals.data());
    });
  } else {
    by_spans<V>(call, intervals, grad, x, dx, parallel_for, isa);
  }
}

}  // namespace

void input_gradient(const QuantCall& call, const void* grad, const void* x,
                    void* dx, const ParallelFor& parallel_for, Isa isa) {
  if (call.layout.numel() == 0) return;
  with_storage<QuantMode::fake_quantize>(call, [&](auto variant) {
    input_gradient_variant<decltype(variant)>(call, grad, x, dx, parallel_for,
                                              isa);
  });
}

}  // namespace aimetpp::kernels::cpu
