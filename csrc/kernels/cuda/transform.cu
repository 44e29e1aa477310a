// SPDX-License-Identifier: BSD-3-Clause
// The formula over device memory.
#include "kernels/cuda/call.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/storage.cuh"
#include "kernels/cuda/walk.cuh"
#include "kernels/fake_quant.h"

namespace aimetpp::kernels::cuda {
namespace {

template <QuantMode mode, typename Compute, typename Stored>
__device__ void transform_packs(const QuantCall& call,
                                const Elements<const Stored>& x,
                                const Elements<Stored>& y) {
  const auto grids = channel_grids<Compute>(call);
  for_packs<Stored>(call.layout.numel(), [&](std::int64_t first, int count) {
    write_pack(y, first, count,
               transformed<mode>(call, grids, first, count,
                                 read_pack(x, first, count)));
  });
}

template <QuantMode mode, typename Stored>
__global__ void __launch_bounds__(kThreads)
    transform_kernel(const __grid_constant__ QuantCall call,
                     const __grid_constant__ Elements<const Stored> x,
                     const __grid_constant__ Elements<Stored> y) {
  if (computes_in_double<Stored>(call)) {
    transform_packs<mode, double>(call, x, y);
  } else {
    transform_packs<mode, float>(call, x, y);
  }
}

}  // namespace

void transform(const QuantCall& call, const Source& x, const Target& y,
               CUstream_st* stream) {
  const std::int64_t numel = call.layout.numel();
  if (numel == 0) return;
  with_variant(call, [&](auto mode, auto stored) {
    using Stored = decltype(stored);
    launch(transform_kernel<decltype(mode)::value, Stored>,
           blocks_for_packs<Stored>(numel), stream, call,
           elements_of<Stored>(x), elements_of<Stored>(y));
  });
}

}  // namespace aimetpp::kernels::cuda
