// SPDX-License-Identifier: BSD-3-Clause
// A hash that tells whether bytes are still what they were, at the speed of
// reading them.
#pragma once

#include <cstdint>

#include "core/isa.h"
#include "core/macros.h"
#include "core/parallel.h"

namespace aimetpp::kernels::cpu {

// Of the bytes and their number; the same for every instruction set and thread
// count. A change of one 4-byte word always changes it, any other change but
// for a chance of about 2^-32. Not meant against someone who wants a collision.
[[nodiscard]] AIMETPP_API std::uint64_t content_hash(
    const void* data, std::int64_t bytes, const ParallelFor& parallel_for,
    Isa isa = best_isa());

}  // namespace aimetpp::kernels::cpu
