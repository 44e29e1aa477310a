// SPDX-License-Identifier: BSD-3-Clause
#include "kernels/content_hash.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <set>
#include <vector>

namespace aimetpp::kernels::cpu {
namespace {

std::vector<std::uint8_t> some_bytes(std::size_t count) {
  std::vector<std::uint8_t> bytes(count);
  std::uint32_t state = 1;
  for (std::uint8_t& byte : bytes) {
    state = state * 1664525U + 1013904223U;
    byte = static_cast<std::uint8_t>(state >> 24);
  }
  return bytes;
}

std::uint64_t hash(const std::vector<std::uint8_t>& bytes, Isa isa = best_isa(),
                   const ParallelFor& parallel = serial_for) {
  return content_hash(bytes.data(), static_cast<std::int64_t>(bytes.size()),
                      parallel, isa);
}

TEST(ContentHash, EveryChangedByteChangesIt) {
  std::vector<std::uint8_t> bytes = some_bytes(1027);
  const std::uint64_t before = hash(bytes);
  for (std::uint8_t& byte : bytes) {
    byte ^= 0x10;
    EXPECT_NE(hash(bytes), before);
    byte ^= 0x10;
  }
  EXPECT_EQ(hash(bytes), before);
}

// Bits of one place that change everywhere, such as all signs of negated
// floats.
TEST(ContentHash, ChangesOfManyWordsDoNotCancelOut) {
  const std::vector<std::uint8_t> bytes = some_bytes(4096);
  std::set<std::uint64_t> seen{hash(bytes)};
  for (int bit = 0; bit < 32; ++bit) {
    for (const std::size_t words : {2U, 64U, 65U, 128U, 1024U}) {
      for (const std::size_t step : {1U, 64U}) {
        if (words * step > 1024) continue;
        std::vector<std::uint8_t> changed = bytes;
        for (std::size_t i = 0; i < words; ++i) {
          changed[4 * i * step + bit / 8] ^= 1U << (bit % 8);
        }
        EXPECT_TRUE(seen.insert(hash(changed)).second)
            << bit << ' ' << words << ' ' << step;
      }
    }
  }
}

TEST(ContentHash, OrderAndLengthMatter) {
  std::vector<std::uint8_t> bytes = some_bytes(2048);
  std::set<std::uint64_t> seen{hash(bytes)};
  std::swap_ranges(bytes.begin(), bytes.begin() + 256, bytes.begin() + 256);
  EXPECT_TRUE(seen.insert(hash(bytes)).second);
  for (std::size_t size = 0; size < 600; ++size) {
    EXPECT_TRUE(seen.insert(hash(std::vector<std::uint8_t>(size))).second)
        << size;
  }
}

TEST(ContentHash, TheSameForEveryInstructionSetAndThreadCount) {
  const ParallelFor backwards = [](std::int64_t count, std::int64_t,
                                   const RangeBody& body) {
    for (std::int64_t i = count; i-- > 0;) body(i, i + 1);
  };
  for (const std::size_t size : {0U, 3U, 256U, 1000U, 700001U}) {
    const std::vector<std::uint8_t> bytes = some_bytes(size);
    const std::uint64_t expected = hash(bytes, Isa::portable);
    EXPECT_EQ(hash(bytes), expected);
    EXPECT_EQ(hash(bytes, best_isa(), backwards), expected);
  }
}

}  // namespace
}  // namespace aimetpp::kernels::cpu
