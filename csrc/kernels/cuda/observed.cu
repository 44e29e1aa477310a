// SPDX-License-Identifier: BSD-3-Clause
// fake_quantize of one range, with the extremes of x in the same read of it.
#include <cmath>
#include <limits>

#include "kernels/cuda/block_reduce.cuh"
#include "kernels/cuda/call.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/storage.cuh"
#include "kernels/cuda/walk.cuh"
#include "kernels/fake_quant.h"

namespace aimetpp::kernels::cuda {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// least > largest: no finite value was seen.
struct Ends {
  float least;
  float largest;
};

__device__ Ends both(const Ends& a, const Ends& b) {
  return {min(a.least, b.least), max(a.largest, b.largest)};
}

// In thread 0.
__device__ Ends block_ends(const Ends& ends) {
  return block_reduce(
      ends,
      [](const Ends& own, unsigned lanes) {
        return Ends{shifted(own.least, lanes), shifted(own.largest, lanes)};
      },
      [](const Ends& a, const Ends& b) { return both(a, b); });
}

// Floats of one sign are ordered as their bits are, read as integers. The order
// in which blocks come does not matter: no value is a NaN or -0.
__device__ void raise(float* largest, float value) {
  if (value >= 0) {
    atomicMax(reinterpret_cast<int*>(largest), __float_as_int(value));
  } else {
    atomicMin(reinterpret_cast<unsigned*>(largest), __float_as_uint(value));
  }
}
__device__ void lower(float* least, float value) {
  if (value >= 0) {
    atomicMin(reinterpret_cast<int*>(least), __float_as_int(value));
  } else {
    atomicMax(reinterpret_cast<unsigned*>(least), __float_as_uint(value));
  }
}

template <typename Compute, typename Stored>
__device__ Ends transform_observed_packs(const QuantCall& call,
                                         const Elements<const Stored>& x,
                                         const Elements<Stored>& y) {
  const AffineGrid<Compute> grid =
      channel_grid(call, grid_steps<Compute>(call), 0);
  Ends ends{kInfinity, -kInfinity};
  for_packs<Stored>(call.layout.numel(), [&](std::int64_t first, int count) {
    Pack<Stored> pack = read_pack(x, first, count);
    for (int k = 0; k < kPackWidth<Stored>; ++k) {
      if (k >= count) break;
      // As on the CPU: a float64 counts as the float it rounds to.
      const float value = load<float>(pack.values[k]) + 0.0F;  // -0 becomes +0
      if (std::isfinite(value)) ends = both(ends, {value, value});
      pack.values[k] =
          store<Stored>(aimetpp::transform<QuantMode::fake_quantize>(
              load<Compute>(pack.values[k]), grid));
    }
    write_pack(y, first, count, pack);
  });
  return ends;
}

template <typename Stored>
__global__ void __launch_bounds__(kThreads)
    transform_observed_kernel(const __grid_constant__ QuantCall call,
                              const __grid_constant__ Elements<const Stored> x,
                              const __grid_constant__ Elements<Stored> y,
                              float* least, float* largest) {
  const Ends ends =
      block_ends(computes_in_double<Stored>(call)
                     ? transform_observed_packs<double>(call, x, y)
                     : transform_observed_packs<float>(call, x, y));
  if (threadIdx.x == 0 && ends.least <= ends.largest) {
    lower(least, ends.least);
    raise(largest, ends.largest);
  }
}

__global__ void __launch_bounds__(kThreads)
    clear_ends_kernel(float* least, float* largest) {
  if (threadIdx.x != 0) return;
  *least = kInfinity;
  *largest = -kInfinity;
}

}  // namespace

void transform_observed(const QuantCall& call, const Source& x, const Target& y,
                        float* least, float* largest, CUstream_st* stream) {
  launch(clear_ends_kernel, 1, stream, least, largest);
  const std::int64_t numel = call.layout.numel();
  if (numel == 0) return;
  with_stored(call.storage, [&](auto stored) {
    using Stored = decltype(stored);
    launch(transform_observed_kernel<Stored>, blocks_for_packs<Stored>(numel),
           stream, call, elements_of<Stored>(x), elements_of<Stored>(y), least,
           largest);
  });
}

}  // namespace aimetpp::kernels::cuda
