// SPDX-License-Identifier: BSD-3-Clause
// The types that one call computes with, and the grids of its channels. Private
// to kernels/cpu.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "core/quant_math.h"
#include "kernels/channel_grid.h"
#include "kernels/cpu/fake_quant_loops.h"
#include "kernels/cpu/storage.h"
#include "kernels/dispatch.h"
#include "kernels/fake_quant.h"

namespace aimetpp::kernels::cpu {

template <QuantMode mode_, typename Stored_, typename Compute_>
struct Variant {
  static constexpr QuantMode kMode = mode_;
  using Stored = Stored_;
  using Compute = Compute_;
};

// Calls run(Stored{}) for elements that are stored so.
template <typename Run>
void with_stored(Storage storage, const Run& run) {
  kernels::with_stored<Half, BFloat16>(storage, run);
}

// Calls run(Variant<mode, Stored, Compute>{}) for what `call` needs.
template <QuantMode mode, typename Stored, typename Run>
void with_compute(const QuantCall& call, const Run& run) {
  if constexpr (std::is_same_v<Stored, double>) {
    run(Variant<mode, double, double>{});
  } else if (needs_double(call.grid[0], call.grid[1])) {
    run(Variant<mode, Stored, double>{});
  } else {
    run(Variant<mode, Stored, float>{});
  }
}

template <QuantMode mode, typename Run>
void with_storage(const QuantCall& call, const Run& run) {
  with_stored(call.storage, [&](auto stored) {
    with_compute<mode, decltype(stored)>(call, run);
  });
}

template <typename Run>
void with_variant(const QuantCall& call, const Run& run) {
  with_mode(call.mode,
            [&](auto mode) { with_storage<decltype(mode)::value>(call, run); });
}

// The grid of every channel of a call.
template <typename Compute>
class Grids {
 public:
  explicit Grids(const QuantCall& call) : steps_(grid_steps<Compute>(call)) {
    const auto channels = static_cast<std::size_t>(call.layout.channels);
    scale_.reserve(channels);
    offset_.reserve(channels);
    for (std::int64_t c = 0; c < call.layout.channels; ++c) {
      const AffineGrid<Compute> grid = channel_grid(call, steps_, c);
      scale_.push_back(grid.scale);
      offset_.push_back(grid.offset);
    }
  }

  [[nodiscard]] GridArrays<Compute> arrays() const {
    return {scale_.data(), offset_.data(), steps_.qmin, steps_.qmax};
  }

 private:
  std::vector<Compute> scale_;
  std::vector<Compute> offset_;
  GridSteps<Compute> steps_;
};

}  // namespace aimetpp::kernels::cpu
