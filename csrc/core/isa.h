// SPDX-License-Identifier: BSD-3-Clause
// The instruction sets that a loop can be compiled for; see core/for_isa.h.
#pragma once

#include <cstdint>
#include <vector>

#include "core/macros.h"

namespace aimetpp {

// portable: what the compiler's baseline has, NEON on 64-bit ARM.
enum class Isa : std::uint8_t { portable, avx2, avx512 };

// Those that this processor runs, the widest last. All give the same bits.
[[nodiscard]] AIMETPP_API const std::vector<Isa>& supported_isas();

[[nodiscard]] AIMETPP_API Isa best_isa();

}  // namespace aimetpp
