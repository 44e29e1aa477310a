// SPDX-License-Identifier: BSD-3-Clause
// What a call means on the device. The grid is read there, so that the host
// never waits; which precision to compute in is therefore decided there too,
// alike for every thread. Private to kernels/cuda.
#pragma once

#include <cstdint>
#include <type_traits>

#include "core/quant_math.h"
#include "kernels/channel_grid.h"
#include "kernels/cuda/storage.cuh"
#include "kernels/cuda/walk.cuh"
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

// The grids of a call's channels: what they have in common, and the first one.
template <typename Compute>
struct ChannelGrids {
  GridSteps<Compute> steps;
  AffineGrid<Compute> first;

  [[nodiscard]] __device__ AffineGrid<Compute> at(const QuantCall& call,
                                                  std::int64_t channel) const {
    return channel == 0 ? first : channel_grid(call, steps, channel);
  }
};

template <typename Compute>
__device__ ChannelGrids<Compute> channel_grids(const QuantCall& call) {
  const GridSteps<Compute> steps = grid_steps<Compute>(call);
  return {steps, channel_grid(call, steps, 0)};
}

// body(k, grid) for `count` elements from `first` on, at most a pack, each with
// the grid of its channel.
template <typename Stored, typename Compute, typename Body>
__device__ void for_elements(const QuantCall& call,
                             const ChannelGrids<Compute>& grids,
                             std::int64_t first, int count, const Body& body) {
  ChannelWalk walk(call.layout, first);
  AffineGrid<Compute> grid = grids.at(call, walk.channel());
  for (int k = 0; k < kPackWidth<Stored>; ++k) {
    if (k >= count) return;
    if (k > 0 && walk.next()) grid = grids.at(call, walk.channel());
    body(k, grid);
  }
}

// A pack of x as `mode` transforms it.
template <QuantMode mode, typename Stored, typename Compute>
__device__ Pack<Stored> transformed(const QuantCall& call,
                                    const ChannelGrids<Compute>& grids,
                                    std::int64_t first, int count,
                                    Pack<Stored> pack) {
  for_elements<Stored>(
      call, grids, first, count, [&](int k, const AffineGrid<Compute>& grid) {
        pack.values[k] = store<Stored>(
            aimetpp::transform<mode>(load<Compute>(pack.values[k]), grid));
      });
  return pack;
}

}  // namespace aimetpp::kernels::cuda
