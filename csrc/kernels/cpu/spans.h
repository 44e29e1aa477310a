// SPDX-License-Identifier: BSD-3-Clause
// Walks over the memory of a call in stretches of one channel. Private to
// kernels/cpu.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/parallel.h"
#include "kernels/fake_quant.h"

namespace aimetpp::kernels::cpu {

// Elements below which another thread does not pay.
constexpr std::int64_t kGrain = 16384;

// run(begin, count, channel) over all elements. A thread's range may begin and
// end within a channel.
template <typename Run>
void for_spans(const ChannelLayout& layout, const ParallelFor& parallel_for,
               const Run& run) {
  parallel_for(
      layout.numel(), kGrain, [&](std::int64_t begin, std::int64_t end) {
        while (begin < end) {
          const std::int64_t stretch = begin / layout.inner;
          const std::int64_t stop = std::min(end, (stretch + 1) * layout.inner);
          run(begin, stop - begin, stretch % layout.channels);
          begin = stop;
        }
      });
}

// run(begin) over the rows of a layout with inner == 1.
template <typename Run>
void for_rows(const ChannelLayout& layout, const ParallelFor& parallel_for,
              const Run& run) {
  parallel_for(layout.outer,
               std::max<std::int64_t>(1, kGrain / layout.channels),
               [&](std::int64_t begin, std::int64_t end) {
                 for (std::int64_t row = begin; row < end; ++row) {
                   run(row * layout.channels);
                 }
               });
}

}  // namespace aimetpp::kernels::cpu
