// SPDX-License-Identifier: BSD-3-Clause
// How a loop asks for threads without knowing whose they are: ops/ and python/
// pass at::parallel_for, the tests a plain loop.
#pragma once

#include <cstdint>
#include <functional>

namespace aimetpp {

// Works on [begin, end).
using RangeBody = std::function<void(std::int64_t begin, std::int64_t end)>;

// Splits [0, count) into disjoint ranges, each but the last of at least `grain`
// items, and runs body on each, in any order and from any thread.
using ParallelFor = std::function<void(std::int64_t count, std::int64_t grain,
                                       const RangeBody& body)>;

inline void serial_for(std::int64_t count, std::int64_t /*grain*/,
                       const RangeBody& body) {
  if (count > 0) body(0, count);
}

}  // namespace aimetpp
