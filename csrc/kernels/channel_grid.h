// SPDX-License-Identifier: BSD-3-Clause
// One channel of a call, on host and device: its grid, and its gradients to min
// and max. Private to kernels/.
#pragma once

#include <cstdint>

#include "core/macros.h"
#include "core/quant_math.h"
#include "kernels/fake_quant.h"

namespace aimetpp::kernels {

// `ends`: call.min or call.max.
template <typename Compute>
AIMETPP_HOST_DEVICE Compute range_end(const QuantCall& call, const void* ends,
                                      std::int64_t channel) {
  return call.range_storage == Storage::float64
             ? static_cast<Compute>(static_cast<const double*>(ends)[channel])
             : static_cast<Compute>(static_cast<const float*>(ends)[channel]);
}

template <typename Compute>
AIMETPP_HOST_DEVICE GridSteps<Compute> grid_steps(const QuantCall& call) {
  return make_grid_steps<Compute>(call.grid[0], call.grid[1]);
}

// `steps`: the call's, which all channels have in common.
template <typename Compute>
AIMETPP_HOST_DEVICE AffineGrid<Compute> channel_grid(
    const QuantCall& call, const GridSteps<Compute>& steps,
    std::int64_t channel) {
  return make_affine_grid(range_end<Compute>(call, call.min, channel),
                          range_end<Compute>(call, call.max, channel), steps,
                          call.symmetric);
}

// `ends`: the gradient to call.min or call.max.
AIMETPP_HOST_DEVICE inline void store_range_end(const QuantCall& call,
                                                void* ends,
                                                std::int64_t channel,
                                                double value) {
  if (call.range_storage == Storage::float64) {
    static_cast<double*>(ends)[channel] = value;
  } else {
    static_cast<float*>(ends)[channel] = static_cast<float>(value);
  }
}

// From a channel's sums of ElementGradient's terms to its dL/dmin and dL/dmax.
template <QuantMode mode, typename Compute>
AIMETPP_HOST_DEVICE void store_range_gradient(const QuantCall& call,
                                              std::int64_t channel,
                                              double scale_sum,
                                              double offset_sum, void* dmin,
                                              void* dmax) {
  const AffineGrid<Compute> grid =
      channel_grid(call, grid_steps<Compute>(call), channel);
  finish_sums<mode>(static_cast<double>(grid.scale), scale_sum, offset_sum);
  const RangeGradient range = chain_to_range(
      scale_sum, offset_sum, range_end<Compute>(call, call.min, channel), grid,
      call.symmetric);
  store_range_end(call, dmin, channel, range.min);
  store_range_end(call, dmax, channel, range.max);
}

}  // namespace aimetpp::kernels
