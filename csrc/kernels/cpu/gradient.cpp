// SPDX-License-Identifier: BSD-3-Clause
#include "kernels/fake_quant.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <type_traits>
#include <utility>
#include <vector>

#include "core/for_isa.h"
#include "core/quant_math.h"
#include "kernels/channel_grid.h"
#include "kernels/cpu/fake_quant_loops.h"
#include "kernels/cpu/float_buffers.h"
#include "kernels/cpu/gradient_simd.h"
#include "kernels/cpu/spans.h"
#include "kernels/cpu/storage.h"
#include "kernels/cpu/stretches.h"
#include "kernels/cpu/variants.h"

namespace aimetpp::kernels::cpu {
namespace {

// Elements that one partial sum of the gradients covers, about.
constexpr std::int64_t kBlock = 4096;

// How the elements are cut into blocks with one partial sum per channel each:
// by the layout alone, never by the number of threads.
struct Blocks {
  explicit Blocks(const ChannelLayout& layout)
      : rows(layout.inner == 1 && layout.channels > 1) {
    const std::int64_t row = rows ? layout.channels : layout.inner;
    // At least 32 rows, so that partial sums stay small beside the tensor.
    outer_size = rows ? std::max<std::int64_t>(32, 4 * kBlock / row)
                      : std::max<std::int64_t>(1, kBlock / row);
    outer_count = (layout.outer + outer_size - 1) / outer_size;
    inner_count = rows ? 1 : (layout.inner + kBlock - 1) / kBlock;
  }

  bool rows;  // inner == 1: neighbours in memory are of different channels
  std::int64_t outer_size;   // consecutive outer indices per block
  std::int64_t outer_count;  // blocks along outer
  std::int64_t inner_count;  // blocks along inner
};

// The sums of each channel, without the factors of finish_sums.
using ChannelSums = std::vector<Sums>;

// What a variant's gradient loops work on.
template <typename V>
struct GradientData {
  const Source& grad;
  const Source& x;
  const Target& dx;
  GridArrays<typename V::Compute> grids;
  ChannelLayout layout;
};

// The same, a stretch of up to `longest` elements at a time; for one thread.
template <typename V>
class GradientStretches {
 public:
  using Stored = typename V::Stored;

  GradientStretches(const GradientData<V>& data, std::int64_t longest)
      : grad_(data.grad, longest), x_(data.x, longest), dx_(data.dx, longest) {}

  // span(grad, x, dx) for the n elements from `begin` on.
  template <typename Span>
  void run(std::int64_t begin, std::int64_t n, const Span& span) {
    span(grad_.read(begin, n), x_.read(begin, n), dx_.place(begin));
    dx_.store(begin, n);
  }

 private:
  SourceStretches<Stored> grad_;
  SourceStretches<Stored> x_;
  TargetStretches<Stored> dx_;
};

// Layout [outer, channels]: a block is a few rows, all channels side by side.
template <typename V>
ChannelSums gradient_by_rows(const GradientData<V>& data, const Blocks& blocks,
                             const ParallelFor& parallel_for, Isa isa) {
  const std::int64_t channels = data.layout.channels;
  const auto row =
      for_isa<&gradient_row<V::kMode, typename V::Stored, typename V::Compute>>(
          isa);
  // [block][scale, offset][channel]
  std::vector<double> partial(
      static_cast<std::size_t>(blocks.outer_count * 2 * channels));
  parallel_for(
      blocks.outer_count, 1, [&](std::int64_t begin, std::int64_t end) {
        GradientStretches<V> stretches(data, channels);
        for (std::int64_t block = begin; block < end; ++block) {
          double* sums = partial.data() + block * 2 * channels;
          const std::int64_t stop =
              std::min(data.layout.outer, (block + 1) * blocks.outer_size);
          for (std::int64_t o = block * blocks.outer_size; o < stop; ++o) {
            stretches.run(o * channels, channels,
                          [&](const auto* grad, const auto* x, auto* dx) {
                            row(grad, x, dx, channels, data.grids, sums,
                                sums + channels);
                          });
          }
        }
      });
  ChannelSums total(static_cast<std::size_t>(channels));
  for (std::int64_t block = 0; block < blocks.outer_count; ++block) {
    const double* sums = partial.data() + block * 2 * channels;
    for (std::int64_t c = 0; c < channels; ++c) {
      total[static_cast<std::size_t>(c)].scale += sums[c];
      total[static_cast<std::size_t>(c)].offset += sums[channels + c];
    }
  }
  return total;
}

// The stretches of a variant; 16-bit floats by way of float32, without
// divisions where the grids allow it.
template <typename V>
class SpanGradient {
 public:
  using Stored = typename V::Stored;
  using Compute = typename V::Compute;

  SpanGradient(const GradientData<V>& data, Isa isa)
      : grids_(data.grids),
        span_(for_isa<&gradient_span<V::kMode, Loaded, Compute>>(isa)) {
    if constexpr (kConverts) conversion_ = float_conversion<Stored>(isa);
#if AIMETPP_HAS_AVX
    if constexpr (kHasFastSpan) {
      const ChannelLayout& layout = data.layout;
      if (isa != Isa::portable && layout.outer * layout.inner >= kWorthAGrid) {
        fast_span_ =
            isa == Isa::avx512 ? &gradient_span_avx512 : &gradient_span_avx2;
        find_gradient_grids(layout.channels);
      }
    }
#endif
  }

  // n neighbours of channel c.
  void operator()(const Stored* grad, const Stored* x, Stored* dx,
                  std::int64_t n, std::int64_t c, LaneSums* sums) const {
    if constexpr (kConverts) {
      static_assert(kBuffer % kRun == 0);  // the runs follow on
      std::array<float, kBuffer> grads;
      std::array<float, kBuffer> values;
      for (std::int64_t begin = 0; begin < n; begin += kBuffer) {
        const std::int64_t size = std::min(kBuffer, n - begin);
        conversion_.load(grad + begin, grads.data(), size);
        conversion_.load(x + begin, values.data(), size);
        run(grads.data(), values.data(), grads.data(), size, c, sums);
        conversion_.store(grads.data(), dx + begin, size);
      }
    } else {
      run(grad, x, dx, n, c, sums);
    }
  }

 private:
  static constexpr bool kConverts =
      std::is_same_v<Compute, float> && !std::is_same_v<Stored, float>;
  static constexpr bool kHasFastSpan =
      std::is_same_v<Compute, float> && V::kMode == QuantMode::fake_quantize;
  using Loaded = std::conditional_t<kConverts, float, Stored>;

  void run(const Loaded* grad, const Loaded* x, Loaded* dx, std::int64_t n,
           std::int64_t c, LaneSums* sums) const {
#if AIMETPP_HAS_AVX
    if constexpr (kHasFastSpan) {
      if (!gradient_grids_.empty()) {
        fast_span_(grad, x, dx, n, gradient_grids_[static_cast<std::size_t>(c)],
                   sums);
        return;
      }
    }
#endif
    span_(grad, x, dx, n, grids_.at(c), sums);
  }

#if AIMETPP_HAS_AVX
  // Elements of a channel from which on a GradientGrid saves more time than it
  // takes to make.
  static constexpr std::int64_t kWorthAGrid = 256;

  // None where a channel does not allow it.
  void find_gradient_grids(std::int64_t channels) {
    std::vector<GradientGrid> found(static_cast<std::size_t>(channels));
    for (std::int64_t c = 0; c < channels; ++c) {
      if (!make_gradient_grid(grids_.at(c),
                              &found[static_cast<std::size_t>(c)])) {
        return;
      }
    }
    gradient_grids_ = std::move(found);
  }

  std::vector<GradientGrid> gradient_grids_;
  void (*fast_span_)(const float*, const float*, float*, std::int64_t,
                     const GradientGrid&, LaneSums*) = nullptr;
#endif
  GridArrays<Compute> grids_;
  void (*span_)(const Loaded*, const Loaded*, Loaded*, std::int64_t,
                AffineGrid<Compute>, LaneSums*);
  std::conditional_t<kConverts, FloatConversion<Stored>, std::nullptr_t>
      conversion_{};
};

// Layout [outer, channels, inner]: a block is of one channel.
template <typename V>
ChannelSums gradient_by_spans(const GradientData<V>& data, const Blocks& blocks,
                              const ParallelFor& parallel_for, Isa isa) {
  const auto [outer, channels, inner] = data.layout;
  const SpanGradient<V> span(data, isa);
  const std::int64_t per_channel = blocks.outer_count * blocks.inner_count;
  // [channel][outer block][inner block]
  std::vector<Sums> partial(static_cast<std::size_t>(channels * per_channel));
  const std::int64_t block_numel = blocks.outer_size * std::min(inner, kBlock);
  const auto run = [&, outer = outer, channels = channels, inner = inner](
                       std::int64_t begin, std::int64_t end) {
    GradientStretches<V> stretches(data, std::min(inner, kBlock));
    for (std::int64_t task = begin; task < end; ++task) {
      // In the order of memory: outer block, channel, inner block.
      const std::int64_t inner_block = task % blocks.inner_count;
      const std::int64_t c = task / blocks.inner_count % channels;
      const std::int64_t outer_block = task / blocks.inner_count / channels;
      const std::int64_t i = inner_block * kBlock;
      const std::int64_t size = std::min(kBlock, inner - i);
      const std::int64_t stop =
          std::min(outer, (outer_block + 1) * blocks.outer_size);
      LaneSums sums;
      for (std::int64_t o = outer_block * blocks.outer_size; o < stop; ++o) {
        stretches.run((o * channels + c) * inner + i, size,
                      [&](const auto* grad, const auto* x, auto* dx) {
                        span(grad, x, dx, size, c, &sums);
                      });
      }
      partial[static_cast<std::size_t>(
          c * per_channel + outer_block * blocks.inner_count + inner_block)] =
          sums.total();
    }
  };
  parallel_for(channels * per_channel,
               std::max<std::int64_t>(1, kGrain / block_numel), run);
  ChannelSums total(static_cast<std::size_t>(channels));
  for (std::size_t i = 0; i < partial.size(); ++i) {
    Sums& sums = total[i / static_cast<std::size_t>(per_channel)];
    sums.scale += partial[i].scale;
    sums.offset += partial[i].offset;
  }
  return total;
}

template <typename V>
void gradient_variant(const QuantCall& call, const Source& grad,
                      const Source& x, const Target& dx, void* dmin, void* dmax,
                      const ParallelFor& parallel_for, Isa isa) {
  using Compute = typename V::Compute;
  const Grids<Compute> grids(call);
  const GradientData<V> data{grad, x, dx, grids.arrays(), call.layout};
  ChannelSums sums(static_cast<std::size_t>(call.layout.channels));
  if (call.layout.numel() > 0) {
    const Blocks blocks(call.layout);
    sums = blocks.rows ? gradient_by_rows<V>(data, blocks, parallel_for, isa)
                       : gradient_by_spans<V>(data, blocks, parallel_for, isa);
  }
  for (std::int64_t c = 0; c < call.layout.channels; ++c) {
    const Sums& sum = sums[static_cast<std::size_t>(c)];
    store_range_gradient<V::kMode, Compute>(call, c, sum.scale, sum.offset,
                                            dmin, dmax);
  }
}

}  // namespace

void gradient(const QuantCall& call, const Source& grad, const Source& x,
              const Target& dx, void* dmin, void* dmax,
              const ParallelFor& parallel_for, Isa isa) {
  with_variant(call, [&](auto variant) {
    gradient_variant<decltype(variant)>(call, grad, x, dx, dmin, dmax,
                                        parallel_for, isa);
  });
}

}  // namespace aimetpp::kernels::cpu
