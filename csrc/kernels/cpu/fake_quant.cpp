// SPDX-License-Identifier: BSD-3-Clause
#include "kernels/fake_quant.h"

#include <algorithm>
#include <type_traits>
#include <vector>

#include "core/for_isa.h"
#include "core/quant_math.h"
#include "kernels/channel_grid.h"
#include "kernels/cpu/fake_quant_loops.h"
#include "kernels/cpu/storage.h"

namespace aimetpp::kernels::cpu {
namespace {

// Elements below which another thread does not pay.
constexpr std::int64_t kGrain = 16384;

// Elements that one partial sum of the gradients covers, about.
constexpr std::int64_t kBlock = 4096;

template <QuantMode mode_, typename Stored_, typename Compute_>
struct Variant {
  static constexpr QuantMode kMode = mode_;
  using Stored = Stored_;
  using Compute = Compute_;
};

// Calls run(Variant<mode, Stored, Compute>{}) for what `call` needs.
template <QuantMode mode, typename Stored, typename Run>
void with_compute(const QuantCall& call, const Run& run) {
  if constexpr (std::is_same_v<Stored, double>) {
    run(Variant<mode, double, double>{});
  } else if (needs_double(call.grid[0], call.grid[1])) {
    run(Variant<mode, Stored, double>{});
  } else {
    run(Variant<mode, Stored, float>{});
  }
}

template <QuantMode mode, typename Run>
void with_storage(const QuantCall& call, const Run& run) {
  switch (call.storage) {
    case Storage::float32:
      return with_compute<mode, float>(call, run);
    case Storage::float64:
      return with_compute<mode, double>(call, run);
    case Storage::float16:
      return with_compute<mode, Half>(call, run);
    case Storage::bfloat16:
      return with_compute<mode, BFloat16>(call, run);
  }
}

template <typename Run>
void with_variant(const QuantCall& call, const Run& run) {
  switch (call.mode) {
    case QuantMode::fake_quantize:
      return with_storage<QuantMode::fake_quantize>(call, run);
    case QuantMode::quantize:
      return with_storage<QuantMode::quantize>(call, run);
    case QuantMode::dequantize:
      return with_storage<QuantMode::dequantize>(call, run);
  }
}

// The grid of every channel of a call.
template <typename Compute>
class Grids {
 public:
  explicit Grids(const QuantCall& call)
      : qmin_(static_cast<Compute>(call.grid[0])),
        qmax_(static_cast<Compute>(call.grid[1])) {
    const auto channels = static_cast<std::size_t>(call.layout.channels);
    scale_.reserve(channels);
    offset_.reserve(channels);
    for (std::int64_t c = 0; c < call.layout.channels; ++c) {
      const AffineGrid<Compute> grid = channel_grid<Compute>(call, c);
      scale_.push_back(grid.scale);
      offset_.push_back(grid.offset);
    }
  }

  [[nodiscard]] GridArrays<Compute> arrays() const {
    return {scale_.data(), offset_.data(), qmin_, qmax_};
  }

 private:
  std::vector<Compute> scale_;
  std::vector<Compute> offset_;
  Compute qmin_;
  Compute qmax_;
};

template <typename V>
void transform_variant(const QuantCall& call, const void* x_data, void* y_data,
                       const ParallelFor& parallel_for, Isa isa) {
  using Stored = typename V::Stored;
  using Compute = typename V::Compute;
  const auto* x = static_cast<const Stored*>(x_data);
  auto* y = static_cast<Stored*>(y_data);
  const Grids<Compute> grids(call);
  const GridArrays<Compute> arrays = grids.arrays();
  const auto [outer, channels, inner] = call.layout;
  if (inner == 1 && channels > 1) {
    const auto row = for_isa<&transform_row<V::kMode, Stored, Compute>>(isa);
    parallel_for(
        outer, std::max<std::int64_t>(1, kGrain / channels),
        [&, channels = channels](std::int64_t begin, std::int64_t end) {
          for (std::int64_t o = begin; o < end; ++o) {
            row(x + o * channels, y + o * channels, channels, arrays);
          }
        });
    return;
  }
  const auto span = for_isa<&transform_span<V::kMode, Stored, Compute>>(isa);
  // A thread's range may begin and end within a channel.
  parallel_for(call.layout.numel(), kGrain,
               [&, channels = channels, inner = inner](std::int64_t begin,
                                                       std::int64_t end) {
                 while (begin < end) {
                   const std::int64_t stretch = begin / inner;
                   const std::int64_t stop =
                       std::min(end, (stretch + 1) * inner);
                   span(x + begin, y + begin, stop - begin,
                        arrays.at(stretch % channels));
                   begin = stop;
                 }
               });
}

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
  const typename V::Stored* grad;
  const typename V::Stored* x;
  typename V::Stored* dx;
  GridArrays<typename V::Compute> grids;
  ChannelLayout layout;
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
        for (std::int64_t block = begin; block < end; ++block) {
          double* sums = partial.data() + block * 2 * channels;
          const std::int64_t stop =
              std::min(data.layout.outer, (block + 1) * blocks.outer_size);
          for (std::int64_t o = block * blocks.outer_size; o < stop; ++o) {
            const std::int64_t at = o * channels;
            row(data.grad + at, data.x + at, data.dx + at, channels, data.grids,
                sums, sums + channels);
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

// Layout [outer, channels, inner]: a block is of one channel.
template <typename V>
ChannelSums gradient_by_spans(const GradientData<V>& data, const Blocks& blocks,
                              const ParallelFor& parallel_for, Isa isa) {
  const auto [outer, channels, inner] = data.layout;
  const auto span = for_isa<
      &gradient_span<V::kMode, typename V::Stored, typename V::Compute>>(isa);
  const std::int64_t per_channel = blocks.outer_count * blocks.inner_count;
  // [channel][outer block][inner block]
  std::vector<Sums> partial(static_cast<std::size_t>(channels * per_channel));
  const std::int64_t block_numel = blocks.outer_size * std::min(inner, kBlock);
  const auto run = [&, outer = outer, channels = channels, inner = inner](
                       std::int64_t begin, std::int64_t end) {
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
        const std::int64_t at = (o * channels + c) * inner + i;
        span(data.grad + at, data.x + at, data.dx + at, size, data.grids.at(c),
             &sums);
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
void gradient_variant(const QuantCall& call, const void* grad, const void* x,
                      void* dx, void* dmin, void* dmax,
                      const ParallelFor& parallel_for, Isa isa) {
  using Stored = typename V::Stored;
  using Compute = typename V::Compute;
  const Grids<Compute> grids(call);
  const GradientData<V> data{
      static_cast<const Stored*>(grad), static_cast<const Stored*>(x),
      static_cast<Stored*>(dx), grids.arrays(), call.layout};
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

void transform(const QuantCall& call, const void* x, void* y,
               const ParallelFor& parallel_for, Isa isa) {
  if (call.layout.numel() == 0) return;
  with_variant(call, [&](auto variant) {
    transform_variant<decltype(variant)>(call, x, y, parallel_for, isa);
  });
}

void gradient(const QuantCall& call, const void* grad, const void* x, void* dx,
              void* dmin, void* dmax, const ParallelFor& parallel_for,
              Isa isa) {
  with_variant(call, [&](auto variant) {
    gradient_variant<decltype(variant)>(call, grad, x, dx, dmin, dmax,
                                        parallel_for, isa);
  });
}

}  // namespace aimetpp::kernels::cpu
