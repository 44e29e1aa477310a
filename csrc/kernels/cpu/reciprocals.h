// SPDX-License-Identifier: BSD-3-Clause
// The grids of a call's channels by reciprocals, where all of them allow it.
// Private to kernels/cpu.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "core/for_isa.h"
#include "core/reciprocal_grid.h"
#include "kernels/cpu/fake_quant_loops.h"
#include "kernels/fake_quant.h"

namespace aimetpp::kernels::cpu {

// Whether the loops of an instruction set have a fused multiply-add; without
// one, std::fma is a function call.
inline bool has_fma(Isa isa) {
#if defined(__FP_FAST_FMAF)
  constexpr bool kPortableHasFma = true;
#else
  constexpr bool kPortableHasFma = false;
#endif
  return isa != Isa::portable || kPortableHasFma;
}

class Reciprocals {
 public:
  struct Channel {
    ReciprocalGrid grid;
    bool by_product = false;  // see check_product
  };

  Reciprocals(const GridArrays<float>& grids, std::int64_t channels, Isa isa) {
    if (!has_fma(isa)) return;
    std::vector<Channel> found(static_cast<std::size_t>(channels));
    for (std::int64_t c = 0; c < channels; ++c) {
      Channel& channel = found[static_cast<std::size_t>(c)];
      if (!make_reciprocal_grid(grids.at(c), &channel.grid)) return;
    }
    channels_ = std::move(found);
  }

  // What x is clamped to beforehand narrows what the grids clamp it to.
  void narrow(const Clamp& before) {
    for (Channel& channel : channels_) {
      const float low = channel.grid.low;
      const float high = channel.grid.high;
      channel.grid.low = clamp_keep_nan(before.low, low, high);
      channel.grid.high = clamp_keep_nan(before.high, low, high);
    }
  }

  // Finds the channels whose quotients need the product only. A check costs
  // about as much for a tie as it saves for 16 elements.
  void check_products(std::int64_t elements_per_channel, Isa isa) {
    const auto check = for_isa<&check_product>(isa);
    for (Channel& channel : channels_) {
      const ReciprocalGrid& grid = channel.grid;
      const float largest = std::max(-grid.low, grid.high) / grid.scale;
      if (static_cast<float>(elements_per_channel) >= 16 * largest) {
        check(grid.scale, static_cast<std::int32_t>(std::lrint(largest)),
              &channel.by_product);
      }
    }
  }

  // False where a channel needs divisions.
  [[nodiscard]] bool usable() const { return !channels_.empty(); }

  [[nodiscard]] const Channel& at(std::int64_t c) const {
    return channels_[static_cast<std::size_t>(c)];
  }

 private:
  std::vector<Channel> channels_;
};

}  // namespace aimetpp::kernels::cpu
