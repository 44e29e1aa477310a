// SPDX-License-Identifier: BSD-3-Clause
// The gradients to x and to the range, in one pass over x.
#include "kernels/cuda/block_reduce.cuh"
#include "kernels/cuda/call.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/storage.cuh"
#include "kernels/fake_quant.h"

namespace aimetpp::kernels::cuda {
namespace {

// How the elements are cut into CUDA blocks, each of which makes one partial
// sum (rows: one per channel of a tile): by the layout alone.
struct Blocks {
  static constexpr std::int64_t kElements = 4096;  // per block, about
  static constexpr std::int64_t kTile = 32;        // channels per block of rows

  explicit Blocks(const ChannelLayout& layout)
      : rows(layout.inner == 1 && layout.channels > 1) {
    if (layout.numel() == 0) return;
    outer_size = rows ? kElements / kTile
                      : std::max<std::int64_t>(1, kElements / layout.inner);
    outer_count = (layout.outer + outer_size - 1) / outer_size;
    inner_count = rows ? 1 : (layout.inner + kElements - 1) / kElements;
  }

  [[nodiscard]] __host__ __device__ std::int64_t per_channel() const {
    return outer_count * inner_count;
  }

  bool rows;  // inner == 1: neighbours in memory are of different channels
  std::int64_t outer_size = 0;   // consecutive outer indices per block
  std::int64_t outer_count = 0;  // blocks along outer
  std::int64_t inner_count = 0;  // blocks along inner
};

// dL/dscale and dL/doffset, up to the factors of finish_sums.
struct Sums {
  double scale;
  double offset;
};

__device__ Sums operator+(const Sums& a, const Sums& b) {
  return {a.scale + b.scale, a.offset + b.offset};
}

// In thread 0.
__device__ Sums block_sum(const Sums& sums) {
  return block_reduce(
      sums,
      [](const Sums& own, unsigned lanes) {
        return Sums{shifted(own.scale, lanes), shifted(own.offset, lanes)};
      },
      [](const Sums& a, const Sums& b) { return a + b; });
}

// What a block works on, each in the order of the walk.
template <typename Stored>
struct GradientData {
  Elements<const Stored> grad;
  Elements<const Stored> x;
  Elements<Stored> dx;
};

// `count` elements of one channel from `first` on, at most a pack: of 16 bytes,
// so that few terms are summed in Compute.
template <QuantMode mode, typename Stored, typename Compute>
__device__ Sums gradient_pack(const GradientData<Stored>& data,
                              std::int64_t first, int count,
                              const AffineGrid<Compute>& grid) {
  Pack<Stored> pack = read_pack(data.grad, first, count);
  const Pack<Stored> values = read_pack(data.x, first, count);
  Compute scale = 0;
  Compute offset = 0;
  for (int k = 0; k < kPackWidth<Stored>; ++k) {
    if (k >= count) break;
    const ElementGradient<Compute> element = aimetpp::gradient<mode>(
        load<Compute>(pack.values[k]), load<Compute>(values.values[k]), grid);
    pack.values[k] = store<Stored>(element.x);
    scale += element.scale_term;
    offset += element.offset_term;
  }
  write_pack(data.dx, first, count, pack);
  return {static_cast<double>(scale), static_cast<double>(offset)};
}

// One block: outer_size x kElements elements of one channel. A thread's share
// depends on the layout alone, not on whether packs are one access.
template <QuantMode mode, typename Compute, typename Stored>
__device__ void gradient_span(const QuantCall& call, const Blocks& blocks,
                              const GradientData<Stored>& data,
                              std::int64_t task, Sums* partial) {
  constexpr std::uint32_t kWidth = kPackWidth<Stored>;
  const ChannelLayout& layout = call.layout;
  const std::int64_t inner_block = task % blocks.inner_count;
  const std::int64_t c = task / blocks.inner_count % layout.channels;
  const std::int64_t outer_block = task / blocks.inner_count / layout.channels;
  const std::int64_t first_i = inner_block * Blocks::kElements;
  const std::int64_t first_o = outer_block * blocks.outer_size;
  // rows * size is below 2 * kElements: 32 bits are enough to divide.
  const auto size = static_cast<std::uint32_t>(
      min(Blocks::kElements, layout.inner - first_i));
  const auto rows = static_cast<std::uint32_t>(
      min(blocks.outer_size, layout.outer - first_o));
  const std::uint32_t packs_of_row = (size + kWidth - 1) / kWidth;
  const AffineGrid<Compute> grid =
      channel_grid(call, grid_steps<Compute>(call), c);
  Sums sums{};
  for (std::uint32_t p = threadIdx.x; p < rows * packs_of_row; p += kThreads) {
    const std::uint32_t at = p % packs_of_row * kWidth;
    const std::int64_t row = (first_o + p / packs_of_row) * layout.channels + c;
    sums = sums + gradient_pack<mode>(data, row * layout.inner + first_i + at,
                                      static_cast<int>(min(kWidth, size - at)),
                                      grid);
  }
  sums = block_sum(sums);
  if (threadIdx.x == 0) {
    partial[c * blocks.per_channel() + outer_block * blocks.inner_count +
            inner_block] = sums;
  }
}

// One block: kTile neighbouring channels of outer_size rows. A warp reads one
// row of the tile; the warps' sums are then added in order.
template <QuantMode mode, typename Compute, typename Stored>
__device__ void gradient_rows(const QuantCall& call, const Blocks& blocks,
                              const GradientData<Stored>& data,
                              std::int64_t task, Sums* partial) {
  constexpr int kTile = static_cast<int>(Blocks::kTile);
  static_assert(kTile == kWarp);
  __shared__ Sums warps[kWarps][kTile];
  const ChannelLayout& layout = call.layout;
  const std::int64_t tiles = (layout.channels + kTile - 1) / kTile;
  const std::int64_t outer_block = task / tiles;
  const int lane = static_cast<int>(threadIdx.x) % kTile;
  const int warp = static_cast<int>(threadIdx.x) / kTile;
  const std::int64_t c = task % tiles * kTile + lane;
  const std::int64_t first = outer_block * blocks.outer_size;
  const std::int64_t stop = min(layout.outer, first + blocks.outer_size);
  Sums sums{};
  if (c < layout.channels) {
    const AffineGrid<Compute> grid =
        channel_grid(call, grid_steps<Compute>(call), c);
    for (std::int64_t o = first + warp; o < stop; o += kWarps) {
      sums = sums + gradient_pack<mode>(data, o * layout.channels + c, 1, grid);
    }
  }
  warps[warp][lane] = sums;
  __syncthreads();
  if (warp == 0 && c < layout.channels) {
    for (int w = 1; w < kWarps; ++w) {
      sums = sums + warps[w][lane];
    }
    partial[c * blocks.per_channel() + outer_block] = sums;
  }
}

template <bool rows, QuantMode mode, typename Compute, typename Stored>
__device__ void gradient_task(const QuantCall& call, const Blocks& blocks,
                              const GradientData<Stored>& data, Sums* partial) {
  if constexpr (rows) {
    gradient_rows<mode, Compute>(call, blocks, data, blockIdx.x, partial);
  } else {
    gradient_span<mode, Compute>(call, blocks, data, blockIdx.x, partial);
  }
}

// rows: those of `blocks`.
template <bool rows, QuantMode mode, typename Stored>
__global__ void __launch_bounds__(kThreads)
    gradient_kernel(const __grid_constant__ QuantCall call,
                    const __grid_constant__ Blocks blocks,
                    const __grid_constant__ GradientData<Stored> data,
                    Sums* partial) {
  if (computes_in_double<Stored>(call)) {
    gradient_task<rows, mode, double>(call, blocks, data, partial);
  } else {
    gradient_task<rows, mode, float>(call, blocks, data, partial);
  }
}

// A channel is one block's.
template <QuantMode mode, typename Stored>
__global__ void __launch_bounds__(kThreads)
    finish_kernel(const __grid_constant__ QuantCall call,
                  std::int64_t per_channel, const Sums* partial, void* dmin,
                  void* dmax) {
  const std::int64_t c = blockIdx.x;
  Sums sums{};
  for (std::int64_t i = threadIdx.x; i < per_channel; i += kThreads) {
    sums = sums + partial[c * per_channel + i];
  }
  sums = block_sum(sums);
  if (threadIdx.x != 0) return;
  if (computes_in_double<Stored>(call)) {
    store_range_gradient<mode, double>(call, c, sums.scale, sums.offset, dmin,
                                       dmax);
  } else {
    store_range_gradient<mode, float>(call, c, sums.scale, sums.offset, dmin,
                                      dmax);
  }
}

template <QuantMode mode, typename Stored>
void launch_gradient(const QuantCall& call, const GradientData<Stored>& data,
                     void* dmin, void* dmax, Sums* partial,
                     cudaStream_t stream) {
  const Blocks blocks(call.layout);
  const std::int64_t columns =
      blocks.rows ? (call.layout.channels + Blocks::kTile - 1) / Blocks::kTile
                  : call.layout.channels;
  const std::int64_t tasks = columns * blocks.per_channel();
  if (tasks > 0) {
    const auto kernel = blocks.rows ? gradient_kernel<true, mode, Stored>
                                    : gradient_kernel<false, mode, Stored>;
    launch(kernel, tasks, stream, call, blocks, data, partial);
  }
  if (call.layout.channels > 0) {
    launch(finish_kernel<mode, Stored>, call.layout.channels, stream, call,
           blocks.per_channel(), partial, dmin, dmax);
  }
}

}  // namespace

std::size_t gradient_workspace_bytes(const ChannelLayout& layout) {
  return static_cast<std::size_t>(layout.channels *
                                  Blocks(layout).per_channel()) *
         sizeof(Sums);
}

void gradient(const QuantCall& call, const Source& grad, const Source& x,
              const Target& dx, void* dmin, void* dmax, void* workspace,
              CUstream_st* stream) {
  with_variant(call, [&](auto mode, auto stored) {
    using Stored = decltype(stored);
    launch_gradient<decltype(mode)::value>(
        call,
        GradientData<Stored>{elements_of<Stored>(grad), elements_of<Stored>(x),
                             elements_of<Stored>(dx)},
        dmin, dmax, static_cast<Sums*>(workspace), stream);
  });
}

}  // namespace aimetpp::kernels::cuda
