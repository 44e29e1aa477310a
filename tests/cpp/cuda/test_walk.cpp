// SPDX-License-Identifier: BSD-3-Clause
// Which channels a device's threads see, also beyond what 32 bits count.
#include "kernels/cuda/walk.cuh"

#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

namespace aimetpp::kernels::cuda {
namespace {

void expect_channels(const ChannelLayout& layout, std::int64_t first,
                     std::int64_t count) {
  const auto channel_of = [&](std::int64_t index) {
    return index / layout.inner % layout.channels;
  };
  ChannelWalk walk(layout, first);
  ASSERT_EQ(walk.channel(), channel_of(first)) << first;
  for (std::int64_t i = first + 1; i < first + count; ++i) {
    ASSERT_EQ(walk.next(), channel_of(i) != channel_of(i - 1)) << i;
    ASSERT_EQ(walk.channel(), channel_of(i)) << i;
  }
}

TEST(ChannelWalk, FollowsTheChannels) {
  for (const ChannelLayout& layout : {ChannelLayout{3, 4, 5},
                                      {1, 1, 60},
                                      {12, 5, 1},
                                      {1, 60, 1},
                                      {2, 2, 15}}) {
    for (std::int64_t first = 0; first < 60; ++first) {
      expect_channels(layout, first, 60 - first);
    }
  }
}

TEST(ChannelWalk, FollowsThemBeyondTwoBillionElements) {
  for (const ChannelLayout& layout :
       {ChannelLayout{1000, 3, 2'000'000}, ChannelLayout{7, 900'000'000, 1},
        ChannelLayout{2, 3, 1'000'000'007}}) {
    for (std::int64_t first = 5; first + 20 < layout.numel();
         first += layout.numel() / 50) {
      expect_channels(layout, first, 20);
    }
    // Over the ends of the last channels, from where the first comes again.
    const std::int64_t all = layout.channels * layout.inner;
    for (std::int64_t end = layout.numel() - all - layout.inner;
         end < layout.numel() - all + 2 * layout.inner; end += layout.inner) {
      expect_channels(layout, end - 3, 6);
    }
  }
}

}  // namespace
}  // namespace aimetpp::kernels::cuda
