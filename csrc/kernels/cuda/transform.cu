// SPDX-License-Identifier: BSD-3-Clause
// The formula over device memory.
#include "kernels/cuda/call.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/storage.cuh"
#include "kernels/fake_quant.h"

namespace aimetpp::kernels::cuda {
namespace {

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
    launch(transform_packs_kernel<mode, Stored>, grid_stride_blocks(packs),
           stream, call, static_cast<const Stored*>(x.data),
           static_cast<Stored*>(y.data), packs);
  } else {
    launch(transform_kernel<mode, Stored>, grid_stride_blocks(numel), stream,
           call, elements_of<Stored>(x), elements_of<Stored>(y));
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

}  // namespace aimetpp::kernels::cuda
