// SPDX-License-Identifier: BSD-3-Clause
// The formula over device memory. The grid is read on the device, so that the
// host never waits; which precision to compute in is therefore decided there
// too, alike for every thread.
#include <cuda_runtime_api.h>

#include "core/quant_math.h"
#include "kernels/channel_grid.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/fake_quant.h"

namespace aimetpp::kernels::cuda {
namespace {

// Calls run(mode as integral_constant, Stored{}) for what `call` asks.
template <typename Run>
void with_variant(const QuantCall& call, const Run& run) {
  with_stored(call.storage, [&](auto stored) {
    using enum QuantMode;
    switch (call.mode) {
      case fake_quantize:
        return run(std::integral_constant<QuantMode, fake_quantize>{}, stored);
      case quantize:
        return run(std::integral_constant<QuantMode, quantize>{}, stored);
      case dequantize:
        return run(std::integral_constant<QuantMode, dequantize>{}, stored);
    }
  });
}

template <typename Stored>
__device__ bool computes_in_double(const QuantCall& call) {
  return std::is_same_v<Stored, double> ||
         needs_double(call.grid[0], call.grid[1]);
}

// ------------------------------------------------------------------ transform

template <QuantMode mode, typename Compute, typename Stored, int width>
__device__ void transform_packs(const QuantCall& call, const Stored* x,
                                Stored* y, std::int64_t packs) {
  using P = Pack<Stored, width>;
  const auto* sources = reinterpret_cast<const P*>(x);
  auto* targets = reinterpret_cast<P*>(y);
  const bool per_tensor = call.layout.channels == 1;
  const bool one_channel_per_pack =
      per_tensor || call.layout.inner % width == 0;
  AffineGrid<Compute> grid{};
  if (per_tensor) grid = channel_grid<Compute>(call, 0);
  const std::int64_t step = std::int64_t{gridDim.x} * blockDim.x;
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
       i < packs; i += step) {
    P pack = sources[i];
    if (!per_tensor && one_channel_per_pack) {
      grid = channel_grid<Compute>(call, channel_of(call.layout, i * width));
    }
    for (int k = 0; k < width; ++k) {
      if (!one_channel_per_pack) {
        grid =
            channel_grid<Compute>(call, channel_of(call.layout, i * width + k));
      }
      pack.values[k] = store<Stored>(
          aimetpp::transform<mode>(load<Compute>(pack.values[k]), grid));
    }
    targets[i] = pack;
  }
}

template <QuantMode mode, typename Stored>
__global__ void __launch_bounds__(kThreads)
    transform_packs_kernel(QuantCall call, const Stored* x, Stored* y,
                           std::int64_t packs) {
  constexpr int kWidth = kPackWidth<Stored>;
  if (computes_in_double<Stored>(call)) {
    transform_packs<mode, double, Stored, kWidth>(call, x, y, packs);
  } else {
    transform_packs<mode, float, Stored, kWidth>(call, x, y, packs);
  }
}

template <QuantMode mode, typename Compute, typename Stored>
__device__ void transform_elements(const QuantCall& call,
                                   const Elements<const Stored>& x,
                                   const Elements<Stored>& y) {
  const std::int64_t step = std::int64_t{gridDim.x} * blockDim.x;
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
       i < call.layout.numel(); i += step) {
    const AffineGrid<Compute> grid =
        channel_grid<Compute>(call, channel_of(call.layout, i));
    y[i] = store<Stored>(aimetpp::transform<mode>(load<Compute>(x[i]), grid));
  }
}

template <QuantMode mode, typename Stored>
__global__ void __launch_bounds__(kThreads)
    transform_kernel(QuantCall call, Elements<const Stored> x,
                     Elements<Stored> y) {
  if (computes_in_double<Stored>(call)) {
    transform_elements<mode, double>(call, x, y);
  } else {
    transform_elements<mode, float>(call, x, y);
  }
}

template <QuantMode mode, typename Stored>
void launch_transform(const QuantCall& call, const Source& x, const Target& y,
                      cudaStream_t stream) {
  constexpr int kWidth = kPackWidth<Stored>;
  const std::int64_t numel = call.layout.numel();
  if (numel % kWidth == 0 && is_in_packs(x) && is_in_packs(y)) {
    const std::int64_t packs = numel / kWidth;
    transform_packs_kernel<mode, Stored>
        <<<grid_stride_blocks(packs), kThreads, 0, stream>>>(
            call, static_cast<const Stored*>(x.data),
            static_cast<Stored*>(y.data), packs);
  } else {
    transform_kernel<mode, Stored>
        <<<grid_stride_blocks(numel), kThreads, 0, stream>>>(
            call, elements_of<Stored>(x), elements_of<Stored>(y));
  }
}

// ------------------------------------------------------------- input gradient

// What passes of one element's gradient.
template <typename Compute, typename Stored>
__device__ Stored passed(const QuantCall& call, Stored grad, Stored x,
                         std::int64_t channel) {
  const AffineGrid<Compute> grid = channel_grid<Compute>(call, channel);
  return store<Stored>(aimetpp::gradient<QuantMode::fake_quantize>(
                           load<Compute>(grad), load<Compute>(x), grid)
                           .x);
}

template <typename Compute, typename Stored>
__device__ void input_gradient_packs(const QuantCall& call, const Stored* grad,
                                     const Stored* x, Stored* dx,
                                     std::int64_t packs) {
  constexpr int kWidth = kPackWidth<Stored>;
  using P = Pack<Stored, kWidth>;
  const auto* grads = reinterpret_cast<const P*>(grad);
  const auto* sources = reinterpret_cast<const P*>(x);
  auto* targets = reinterpret_cast<P*>(dx);
  const std::int64_t step = std::int64_t{gridDim.x} * blockDim.x;
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
       i < packs; i += step) {
    P pack = grads[i];
    const P values = sources[i];
    for (int k = 0; k < kWidth; ++k) {
      pack.values[k] = passed<Compute>(call, pack.values[k], values.values[k],
                                       channel_of(call.layout, i * kWidth + k));
    }
    targets[i] = pack;
  }
}

template <typename Stored>
__global__ void __launch_bounds__(kThreads)
    input_gradient_packs_kernel(QuantCall call, const Stored* grad,
                                const Stored* x, Stored* dx,
                                std::int64_t packs) {
  if (computes_in_double<Stored>(call)) {
    input_gradient_packs<double>(call, grad, x, dx, packs);
  } else {
    input_gradient_packs<float>(call, grad, x, dx, packs);
  }
}

template <typename Stored>
__global__ void __launch_bounds__(kThreads)
    input_gradient_kernel(QuantCall call, Elements<const Stored> grad,
                          Elements<const Stored> x, Elements<Stored> dx) {
  const bool in_double = computes_in_double<Stored>(call);
  const std::int64_t step = std::int64_t{gridDim.x} * blockDim.x;
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
       i < call.layout.numel(); i += step) {
    const std::int64_t channel = channel_of(call.layout, i);
    dx[i] = in_double ? passed<double>(call, Stored{grad[i]}, x[i], channel)
                      : passed<float>(call, Stored{grad[i]}, x[i], channel);
  }
}

template <typename Stored>
void launch_input_gradient(const QuantCall& call, const Source& grad,
                           const Source& x, const Target& dx,
                           cudaStream_t stream) {
  constexpr int kWidth = kPackWidth<Stored>;
  const std::int64_t numel = call.layout.numel();
  if (numel % kWidth == 0 && is_in_packs(grad) && is_in_packs(x) &&
      is_in_packs(dx)) {
    const std::int64_t packs = numel / kWidth;
    input_gradient_packs_kernel<Stored>
        <<<grid_stride_blocks(packs), kThreads, 0, stream>>>(
            call, static_cast<const Stored*>(grad.data),
            static_cast<const Stored*>(x.data), static_cast<Stored*>(dx.data),
            packs);
  } else {
    input_gradient_kernel<Stored>
        <<<grid_stride_blocks(numel), kThreads, 0, stream>>>(
            call, elements_of<Stored>(grad), elements_of<Stored>(x),
            elements_of<Stored>(dx));
  }
}

// ------------------------------------------------------------------- gradient

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
    gradient_kernel<mode, Stored><<<blocks_for(tasks), kThreads, 0, stream>>>(
        call, blocks, data, tasks, partial);
  }
  if (call.layout.channels > 0) {
    finish_kernel<mode, Stored>
        <<<blocks_for(call.layout.channels), kThreads, 0, stream>>>(
            call, blocks.per_channel(), partial, dmin, dmax);
  }
}

}  // namespace

void transform(const QuantCall& call, const Source& x, const Target& y,
               CUstream_st* stream) {
  if (call.layout.numel() == 0) return;
  with_variant(call, [&](auto mode, auto stored) {
    launch_transform<decltype(mode)::value, decltype(stored)>(call, x, y,
                                                              stream);
  });
}

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

void input_gradient(const QuantCall& call, const Source& grad, const Source& x,
                    const Target& dx, CUstream_st* stream) {
  if (call.layout.numel() == 0) return;
  with_stored(call.storage, [&](auto stored) {
    launch_input_gradient<decltype(stored)>(call, grad, x, dx, stream);
  });
}

}  // namespace aimetpp::kernels::cuda
