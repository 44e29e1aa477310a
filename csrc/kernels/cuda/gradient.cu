// SPDX-License-Identifier: BSD-3-Clause
// The gradients to x and to the range, in one pass over x.
#include "kernels/cuda/block_sum.cuh"
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
  double scale = 0;
  double offset = 0;
};

// What a block works on, each in the order of the walk.
template <typename Stored>
struct GradientData {
  Elements<const Stored> grad;
  Elements<const Stored> x;
  Elements<Stored> dx;
};

template <QuantMode mode, typename Stored, typename Compute>
__device__ void add_element(const GradientData<Stored>& data, std::int64_t i,
                            const AffineGrid<Compute>& grid, Sums& sums) {
  const ElementGradient<Compute> element = aimetpp::gradient<mode>(
      load<Compute>(data.grad[i]), load<Compute>(data.x[i]), grid);
  data.dx[i] = store<Stored>(element.x);
  sums.scale += static_cast<double>(element.scale_term);
  sums.offset += static_cast<double>(element.offset_term);
}

// One block: outer_size x kElements elements of one channel.
template <QuantMode mode, typename Compute, typename Stored>
__device__ void gradient_span(const QuantCall& call, const Blocks& blocks,
                              const GradientData<Stored>& data,
                              std::int64_t task, Sums* partial) {
  const ChannelLayout& layout = call.layout;
  const std::int64_t inner_block = task % blocks.inner_count;
  const std::int64_t c = task / blocks.inner_count % layout.channels;
  const std::int64_t outer_block = task / blocks.inner_count / layout.channels;
  const std::int64_t first_i = inner_block * Blocks::kElements;
  const std::int64_t size = min(Blocks::kElements, layout.inner - first_i);
  const std::int64_t first_o = outer_block * blocks.outer_size;
  const std::int64_t rows = min(blocks.outer_size, layout.outer - first_o);
  const AffineGrid<Compute> grid = channel_grid<Compute>(call, c);
  Sums sums;
  // rows * size is below 2 * kElements: 32 bits are enough to divide.
  const auto count = static_cast<std::uint32_t>(rows * size);
  for (std::uint32_t e = threadIdx.x; e < count; e += kThreads) {
    const std::int64_t o = first_o + e / static_cast<std::uint32_t>(size);
    const std::int64_t i = first_i + e % static_cast<std::uint32_t>(size);
    add_element<mode>(data, (o * layout.channels + c) * layout.inner + i, grid,
                      sums);
  }
  const double scale = block_sum(sums.scale);
  const double offset = block_sum(sums.offset);
  if (threadIdx.x == 0) {
    partial[c * blocks.per_channel() + outer_block * blocks.inner_count +
            inner_block] = {scale, offset};
  }
}

// One block: kTile neighbouring channels of outer_size rows. A warp reads one
// row of the tile; the warps' sums are then added in order.
template <QuantMode mode, typename Compute, typename Stored>
__device__ void gradient_rows(const QuantCall& call, const Blocks& blocks,
                              const GradientData<Stored>& data,
                              std::int64_t task, Sums* partial) {
  constexpr int kTile = static_cast<int>(Blocks::kTile);
  constexpr int kWarps = kThreads / kTile;
  __shared__ Sums warps[kWarps][kTile];
  const ChannelLayout& layout = call.layout;
  const std::int64_t tiles = (layout.channels + kTile - 1) / kTile;
  const std::int64_t outer_block = task / tiles;
  const int lane = static_cast<int>(threadIdx.x) % kTile;
  const int warp = static_cast<int>(threadIdx.x) / kTile;
  const std::int64_t c = task % tiles * kTile + lane;
  const std::int64_t first = outer_block * blocks.outer_size;
  const std::int64_t stop = min(layout.outer, first + blocks.outer_size);
  Sums sums;
  if (c < layout.channels) {
    const AffineGrid<Compute> grid = channel_grid<Compute>(call, c);
    for (std::int64_t o = first + warp; o < stop; o += kWarps) {
      add_element<mode>(data, o * layout.channels + c, grid, sums);
    }
  }
  warps[warp][lane] = sums;
  __syncthreads();
  if (warp == 0 && c < layout.channels) {
    for (int w = 1; w < kWarps; ++w) {
      sums.scale += warps[w][lane].scale;
      sums.offset += warps[w][lane].offset;
    }
    partial[c * blocks.per_channel() + outer_block] = sums;
  }
  __syncthreads();  // `warps` may be used again
}

template <QuantMode mode, typename Compute, typename Stored>
__device__ void gradient_tasks(const QuantCall& call, const Blocks& blocks,
                               const GradientData<Stored>& data,
                               std::int64_t tasks, Sums* partial) {
  for (std::int64_t task = blockIdx.x; task < tasks; task += gridDim.x) {
    if (blocks.rows) {
      gradient_rows<mode, Compute>(call, blocks, data, task, partial);
    } else {
      gradient_span<mode, Compute>(call, blocks, data, task, partial);
    }
  }
}

template <QuantMode mode, typename Stored>
__global__ void __launch_bounds__(kThreads)
    gradient_kernel(QuantCall call, Blocks blocks, GradientData<Stored> data,
                    std::int64_t tasks, Sums* partial) {
  if (computes_in_double<Stored>(call)) {
    gradient_tasks<mode, double>(call, blocks, data, tasks, partial);
  } else {
    gradient_tasks<mode, float>(call, blocks, data, tasks, partial);
  }
}

// A channel is one block's.
template <QuantMode mode, typename Stored>
__global__ void __launch_bounds__(kThreads)
    finish_kernel(QuantCall call, std::int64_t per_channel, const Sums* partial,
                  void* dmin, void* dmax) {
  for (std::int64_t c = blockIdx.x; c < call.layout.channels; c += gridDim.x) {
    Sums sums;
    for (std::int64_t i = threadIdx.x; i < per_channel; i += kThreads) {
      sums.scale += partial[c * per_channel + i].scale;
      sums.offset += partial[c * per_channel + i].offset;
    }
    const double scale = block_sum(sums.scale);
    const double offset = block_sum(sums.offset);
    if (threadIdx.x != 0) continue;
    if (computes_in_double<Stored>(call)) {
      store_range_gradient<mode, double>(call, c, scale, offset, dmin, dmax);
    } else {
      store_range_gradient<mode, float>(call, c, scale, offset, dmin, dmax);
    }
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
    launch(gradient_kernel<mode, Stored>, blocks_for(tasks), stream, call,
           blocks, data, tasks, partial);
  }
  if (call.layout.channels > 0) {
    launch(finish_kernel<mode, Stored>, blocks_for(call.layout.channels),
           stream, call, blocks.per_channel(), partial, dmin, dmax);
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
