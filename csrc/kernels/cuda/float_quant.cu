// SPDX-License-Identifier: BSD-3-Clause
// Rounding to narrow floating-point formats over device memory.
#include "kernels/float_quant.h"

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/storage.cuh"

namespace aimetpp::kernels::cuda {
namespace {

template <typename Stored>
using ComputeOf =
    std::conditional_t<std::is_same_v<Stored, double>, double, float>;

template <typename Compute>
__device__ Compute scale_at(const float* scale, const ChannelLayout& layout,
                            std::int64_t index) {
  if (scale == nullptr) return 1;
  return static_cast<Compute>(
      scale[layout.channels == 1 ? 0 : channel_of(layout, index)]);
}

template <typename Stored>
__global__ void __launch_bounds__(kThreads)
    quantize_kernel(FloatGrid<ComputeOf<Stored>> grid, ChannelLayout layout,
                    const float* scale, Elements<const Stored> x,
                    Elements<Stored> y) {
  using Compute = ComputeOf<Stored>;
  const std::int64_t step = std::int64_t{gridDim.x} * blockDim.x;
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
       i < layout.numel(); i += step) {
    const Compute s = scale_at<Compute>(scale, layout, i);
    y[i] = store<Stored>(round_to_format(load<Compute>(x[i]) / s, grid) * s);
  }
}

template <typename Stored>
__global__ void __launch_bounds__(kThreads)
    gradient_kernel(FloatGrid<ComputeOf<Stored>> grid, ChannelLayout layout,
                    const float* scale, Elements<const Stored> grad,
                    Elements<const Stored> x, Elements<Stored> dx) {
  using Compute = ComputeOf<Stored>;
  const std::int64_t step = std::int64_t{gridDim.x} * blockDim.x;
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
       i < layout.numel(); i += step) {
    const Compute s = scale_at<Compute>(scale, layout, i);
    const bool inside = is_in_range(load<Compute>(x[i]), s, grid);
    dx[i] = inside ? grad[i] : store<Stored>(Compute{0});
  }
}

}  // namespace

void float_quantize(const FloatCall& call, const Source& x, const Target& y,
                    CUstream_st* stream) {
  const std::int64_t numel = call.layout.numel();
  if (numel == 0) return;
  with_stored(call.storage, [&](auto stored) {
    using Stored = decltype(stored);
    launch(quantize_kernel<Stored>, grid_stride_blocks(numel), stream,
           make_float_grid<ComputeOf<Stored>>(call.format), call.layout,
           call.scale, elements_of<Stored>(x), elements_of<Stored>(y));
  });
}

void float_gradient(const FloatCall& call, const Source& grad, const Source& x,
                    const Target& dx, CUstream_st* stream) {
  const std::int64_t numel = call.layout.numel();
  if (numel == 0) return;
  with_stored(call.storage, [&](auto stored) {
    using Stored = decltype(stored);
    launch(gradient_kernel<Stored>, grid_stride_blocks(numel), stream,
           make_float_grid<ComputeOf<Stored>>(call.format), call.layout,
           call.scale, elements_of<Stored>(grad), elements_of<Stored>(x),
           elements_of<Stored>(dx));
  });
}

}  // namespace aimetpp::kernels::cuda
