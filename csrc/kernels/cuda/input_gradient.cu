// SPDX-License-Identifier: BSD-3-Clause
// The gradient to x where the range is not trained.
#include "kernels/cuda/call.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/storage.cuh"
#include "kernels/cuda/walk.cuh"
#include "kernels/fake_quant.h"

namespace aimetpp::kernels::cuda {
namespace {

template <typename Compute, typename Stored>
__device__ void input_gradient_packs(const QuantCall& call,
                                     const Elements<const Stored>& grad,
                                     const Elements<const Stored>& x,
                                     const Elements<Stored>& dx) {
  const auto grids = channel_grids<Compute>(call);
  for_packs<Stored>(call.layout.numel(), [&](std::int64_t first, int count) {
    Pack<Stored> pack = read_pack(grad, first, count);
    const Pack<Stored> values = read_pack(x, first, count);
    for_elements<Stored>(
        call, grids, first, count, [&](int k, const AffineGrid<Compute>& grid) {
          const auto element = aimetpp::gradient<QuantMode::fake_quantize>(
              load<Compute>(pack.values[k]), load<Compute>(values.values[k]),
              grid);
          pack.values[k] = store<Stored>(element.x);
        });
    write_pack(dx, first, count, pack);
  });
}

template <typename Stored>
__global__ void __launch_bounds__(kThreads)
    input_gradient_kernel(const __grid_constant__ QuantCall call,
                          const __grid_constant__ Elements<const Stored> grad,
                          const __grid_constant__ Elements<const Stored> x,
                          const __grid_constant__ Elements<Stored> dx) {
  if (computes_in_double<Stored>(call)) {
    input_gradient_packs<double>(call, grad, x, dx);
  } else {
    input_gradient_packs<float>(call, grad, x, dx);
  }
}

}  // namespace

void input_gradient(const QuantCall& call, const Source& grad, const Source& x,
                    const Target& dx, CUstream_st* stream) {
  const std::int64_t numel = call.layout.numel();
  if (numel == 0) return;
  with_stored(call.storage, [&](auto stored) {
    using Stored = decltype(stored);
    launch(input_gradient_kernel<Stored>, blocks_for_packs<Stored>(numel),
           stream, call, elements_of<Stored>(grad), elements_of<Stored>(x),
           elements_of<Stored>(dx));
  });
}

}  // namespace aimetpp::kernels::cuda
