// SPDX-License-Identifier: BSD-3-Clause
// fake_quantize of one tensor on several grids, read once.
#include <algorithm>
#include <cstddef>
#include <span>

#include "kernels/cuda/call.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/storage.cuh"
#include "kernels/cuda/walk.cuh"
#include "kernels/fake_quant.h"

namespace aimetpp::kernels::cuda {
namespace {

// Of one launch, in its parameters: there are 4 KB for them.
constexpr int kMostCalls = 16;

struct Calls {
  int count;
  QuantCall calls[kMostCalls];
  void* results[kMostCalls];
  bool all_in_packs;  // the results
};

// The grids of all calls, for the threads of a block; each call has its own in
// float or in double.
struct SharedGrids {
  ChannelGrids<float> in_float[kMostCalls];
  ChannelGrids<double> in_double[kMostCalls];
  bool computes_in_double[kMostCalls];
};

template <typename Stored>
__global__ void __launch_bounds__(kThreads)
    transform_many_kernel(const __grid_constant__ Calls all,
                          const __grid_constant__ Elements<const Stored> x) {
  __shared__ SharedGrids grids;
  const auto own = static_cast<int>(threadIdx.x);
  if (own < all.count) {
    const QuantCall& call = all.calls[own];
    grids.computes_in_double[own] = computes_in_double<Stored>(call);
    if (grids.computes_in_double[own]) {
      grids.in_double[own] = channel_grids<double>(call);
    } else {
      grids.in_float[own] = channel_grids<float>(call);
    }
  }
  __syncthreads();
  constexpr QuantMode kMode = QuantMode::fake_quantize;
  const std::int64_t numel = all.calls[0].layout.numel();
  for_packs<Stored>(numel, [&](std::int64_t first, int count) {
    const Pack<Stored> pack = read_pack(x, first, count);
    for (int i = 0; i < all.count; ++i) {
      const QuantCall& call = all.calls[i];
      write_pack(
          static_cast<Stored*>(all.results[i]), all.all_in_packs, first, count,
          grids.computes_in_double[i]
              ? transformed<kMode>(call, grids.in_double[i], first, count, pack)
              : transformed<kMode>(call, grids.in_float[i], first, count,
                                   pack));
    }
  });
}

}  // namespace

void transform_many(std::span<const QuantCall> calls, const Source& x,
                    std::span<void* const> ys, CUstream_st* stream) {
  if (calls.empty() || calls[0].layout.numel() == 0) return;
  for (std::size_t begin = 0; begin < calls.size(); begin += kMostCalls) {
    const std::size_t count =
        std::min<std::size_t>(kMostCalls, calls.size() - begin);
    Calls part{};
    part.count = static_cast<int>(count);
    std::copy_n(calls.begin() + begin, count, part.calls);
    std::copy_n(ys.begin() + begin, count, part.results);
    part.all_in_packs =
        std::all_of(part.results, part.results + count, begins_a_pack);
    with_stored(calls[0].storage, [&](auto stored) {
      using Stored = decltype(stored);
      launch(transform_many_kernel<Stored>,
             blocks_for_packs<Stored>(calls[0].layout.numel()), stream, part,
             elements_of<Stored>(x));
    });
  }
}

}  // namespace aimetpp::kernels::cuda
