// SPDX-License-Identifier: BSD-3-Clause
// Rounding to narrow floating-point formats over device memory.
#include "kernels/float_quant.h"

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/storage.cuh"
#include "kernels/cuda/walk.cuh"

namespace aimetpp::kernels::cuda {
namespace {

template <typename Stored>
using ComputeOf =
    std::conditional_t<std::is_same_v<Stored, double>, double, float>;

// body(k, scale) for `count` elements from `first` on, at most a pack.
template <typename Stored, typename Body>
__device__ void for_scales(const ChannelLayout& layout, const float* scales,
                           std::int64_t first, int count, const Body& body) {
  using Compute = ComputeOf<Stored>;
  ChannelWalk walk(layout, first);
  for (int k = 0; k < kPackWidth<Stored>; ++k) {
    if (k >= count) return;
    if (k > 0) walk.next();
    body(k, scales == nullptr ? Compute{1}
                              : static_cast<Compute>(scales[walk.channel()]));
  }
}

template <typename Stored>
__global__ void __launch_bounds__(kThreads)
    quantize_kernel(FloatGrid<ComputeOf<Stored>> grid, ChannelLayout layout,
                    const float* scales,
                    const __grid_constant__ Elements<const Stored> x,
                    const __grid_constant__ Elements<Stored> y) {
  using Compute = ComputeOf<Stored>;
  for_packs<Stored>(layout.numel(), [&](std::int64_t first, int count) {
    Pack<Stored> pack = read_pack(x, first, count);
    for_scales<Stored>(layout, scales, first, count, [&](int k, Compute scale) {
      const Compute ratio = load<Compute>(pack.values[k]) / scale;
      pack.values[k] = store<Stored>(round_to_format(ratio, grid) * scale);
    });
    write_pack(y, first, count, pack);
  });
}

template <typename Stored>
__global__ void __launch_bounds__(kThreads)
    gradient_kernel(FloatGrid<ComputeOf<Stored>> grid, ChannelLayout layout,
                    const float* scales,
                    const __grid_constant__ Elements<const Stored> grad,
                    const __grid_constant__ Elements<const Stored> x,
                    const __grid_constant__ Elements<Stored> dx) {
  using Compute = ComputeOf<Stored>;
  for_packs<Stored>(layout.numel(), [&](std::int64_t first, int count) {
    Pack<Stored> pack = read_pack(grad, first, count);
    const Pack<Stored> values = read_pack(x, first, count);
    for_scales<Stored>(layout, scales, first, count, [&](int k, Compute scale) {
      if (!is_in_range(load<Compute>(values.values[k]), scale, grid)) {
        pack.values[k] = store<Stored>(Compute{0});
      }
    });
    write_pack(dx, first, count, pack);
  });
}

}  // namespace

void float_quantize(const FloatCall& call, const Source& x, const Target& y,
                    CUstream_st* stream) {
  const std::int64_t numel = call.layout.numel();
  if (numel == 0) return;
  with_stored(call.storage, [&](auto stored) {
    using Stored = decltype(stored);
    launch(quantize_kernel<Stored>, blocks_for_packs<Stored>(numel), stream,
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
    launch(gradient_kernel<Stored>, blocks_for_packs<Stored>(numel), stream,
           make_float_grid<ComputeOf<Stored>>(call.format), call.layout,
           call.scale, elements_of<Stored>(grad), elements_of<Stored>(x),
           elements_of<Stored>(dx));
  });
}

}  // namespace aimetpp::kernels::cuda
