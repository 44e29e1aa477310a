// SPDX-License-Identifier: BSD-3-Clause
// How the threads of a launch walk over a tensor: a pack of elements each,
// until all are done. Private to kernels/cuda.
#pragma once

#include <cstdint>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/storage.cuh"
#include "kernels/fake_quant.h"

namespace aimetpp::kernels::cuda {

// Blocks for a launch that calls for_packs<Stored>.
template <typename Stored>
std::int64_t blocks_for_packs(std::int64_t numel) {
  return grid_stride_blocks((numel + kPackWidth<Stored> - 1) /
                            kPackWidth<Stored>);
}

// body(first, count) for each pack of a tensor, by one thread of the launch;
// count is below kPackWidth at the end alone.
template <typename Stored, typename Body>
__device__ void for_packs(std::int64_t numel, const Body& body) {
  constexpr std::int64_t kWidth = kPackWidth<Stored>;
  const std::int64_t step = kWidth * gridDim.x * blockDim.x;
  for (std::int64_t first =
           kWidth * (std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x);
       first < numel; first += step) {
    body(first, static_cast<int>(min(kWidth, numel - first)));
  }
}

// The channels of elements that follow each other.
class ChannelWalk {
 public:
  __device__ ChannelWalk(const ChannelLayout& layout, std::int64_t first)
      : channels_(layout.channels), inner_(layout.inner) {
    if (channels_ == 1) return;
    // 64-bit division is slow on the device.
    if (layout.numel() <= INT32_MAX) {
      const auto index = static_cast<std::uint32_t>(first);
      const auto inner = static_cast<std::uint32_t>(inner_);
      channel_ = index / inner % static_cast<std::uint32_t>(channels_);
      left_ = inner - index % inner;
    } else {
      channel_ = first / inner_ % channels_;
      left_ = inner_ - first % inner_;
    }
  }

  [[nodiscard]] __device__ std::int64_t channel() const { return channel_; }

  // On to the next element; whether it is of another channel.
  __device__ bool next() {
    if (channels_ == 1 || --left_ > 0) return false;
    left_ = inner_;
    channel_ = channel_ + 1 == channels_ ? 0 : channel_ + 1;
    return true;
  }

 private:
  std::int64_t channels_;
  std::int64_t inner_;
  std::int64_t channel_ = 0;
  std::int64_t left_ = 0;  // elements of the channel, this one included
};

}  // namespace aimetpp::kernels::cuda
