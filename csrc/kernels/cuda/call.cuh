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

// The grids of a call's channels.
template <typename Compute>
class ChannelGrids {
 public:
  __device__ explicit ChannelGrids(const QuantCall& call)
      : call_(call),
        steps_(grid_steps<Compute>(call)),
        first_(channel_grid(call, steps_, 0)) {}

  [[nodiscard]] __device__ AffineGrid<Compute> at(std::int64_t channel) const {
    return channel == 0 ? first_ : channel_grid(call_, steps_, channel);
  }

  // body(k, grid) for `count` elements from `first` on, at most a pack, each
  // with the grid of its channel.
  template <typename Stored, typename Body>
  __device__ void for_elements(std::int64_t first, int count,
                               const Body& body) const {
    ChannelWalk walk(call_.layout, first);
    AffineGrid<Compute> grid = at(walk.channel());
    for (int k = 0; k < kPackWidth<Stored>; ++k) {
      if (k >= count) return;
      if (k > 0 && walk.next()) grid = at(walk.channel());
      body(k, grid);
    }
  }

 private:
  const QuantCall& call_;
  GridSteps<Compute> steps_;
  AffineGrid<Compute> first_;
};

}  // namespace aimetpp::kernels::cuda
