// SPDX-License-Identifier: BSD-3-Clause
// What a call means on the device. The grid is read there, so that the host
// never waits; which precision to compute in is therefore decided there too,
// alike for every thread. Private to kernels/cuda.
#pragma once

#include <type_traits>

#include "core/quant_math.h"
#include "kernels/channel_grid.h"
#include "kernels/cuda/storage.cuh"
#include "kernels/dispatch.h"

namespace aimetpp::kernels::cuda {

// Calls run(mode as integral_constant, Stored{}) for what `call` asks.
template <typename Run>
void with_variant(const QuantCall& call, const Run& run) {
  with_mode(call.mode, [&](auto mode) {
    with_stored(call.storage, [&](auto stored) { run(mode, stored); });
  });
}

template <typename Stored>
__device__ bool computes_in_double(const QuantCall& call) {
  return std::is_same_v<Stored, double> ||
         needs_double(call.grid[0], call.grid[1]);
}

}  // namespace aimetpp::kernels::cuda
