// SPDX-License-Identifier: BSD-3-Clause
#include "kernels/content_hash.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#include "core/for_isa.h"

namespace aimetpp::kernels::cpu {
namespace {

// Word i of a block goes to lane i % kLanes. Each step of a lane is invertible:
// whatever its place, a changed word changes its lane. Shifting down is what
// lets highest bits count: without it, two signs that flip would cancel out.
constexpr std::size_t kLanes = 64;
constexpr std::uint32_t kMultiplier = 0x9e3779b1U;
constexpr std::uint64_t kCombiner = 0x9e3779b97f4a7c15U;
constexpr std::int64_t kBlockWords = std::int64_t{1} << 16;

using Lanes = std::array<std::uint32_t, kLanes>;

std::uint64_t combined(std::uint64_t hash, std::uint64_t value) {
  // Multiplying by an odd number and xor-ing the upper half down: invertible.
  hash = (hash ^ value) * kCombiner;
  return hash ^ (hash >> 32);
}

AIMETPP_ALWAYS_INLINE void hash_words(const std::uint32_t* words,
                                      std::int64_t rows, Lanes* lanes) {
  Lanes local = *lanes;
  for (std::int64_t row = 0; row < rows; ++row) {
    for (std::size_t lane = 0; lane < kLanes; ++lane) {
      const std::uint32_t mixed = (local[lane] ^ words[lane]) * kMultiplier;
      local[lane] = mixed ^ (mixed >> 15);
    }
    words += kLanes;
  }
  *lanes = local;
}

}  // namespace

std::uint64_t content_hash(const void* data, std::int64_t bytes,
                           const ParallelFor& parallel_for, Isa isa) {
  constexpr std::int64_t kRowBytes = kLanes * sizeof(std::uint32_t);
  constexpr std::int64_t kBlockBytes = kBlockWords * 4;
  const auto* begin = static_cast<const std::byte*>(data);
  const std::int64_t whole = bytes - bytes % kRowBytes;
  const std::int64_t blocks = (whole + kBlockBytes - 1) / kBlockBytes;
  const auto run = for_isa<&hash_words>(isa);
  std::vector<std::uint64_t> hashes(static_cast<std::size_t>(blocks));
  const auto finished = [](const Lanes& lanes) {
    std::uint64_t hash = 0;
    for (const std::uint32_t lane : lanes) hash = combined(hash, lane);
    return hash;
  };
  parallel_for(blocks, 1, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t block = first; block < last; ++block) {
      const std::int64_t at = block * kBlockBytes;
      Lanes lanes{};
      run(reinterpret_cast<const std::uint32_t*>(begin + at),
          std::min(kBlockBytes, whole - at) / kRowBytes, &lanes);
      hashes[static_cast<std::size_t>(block)] = finished(lanes);
    }
  });
  std::uint64_t hash = combined(0, static_cast<std::uint64_t>(bytes));
  for (const std::uint64_t value : hashes) hash = combined(hash, value);
  if (bytes == whole) return hash;
  Lanes rest{};
  std::memcpy(rest.data(), begin + whole,
              static_cast<std::size_t>(bytes - whole));
  return combined(hash, finished(rest));
}

}  // namespace aimetpp::kernels::cpu
