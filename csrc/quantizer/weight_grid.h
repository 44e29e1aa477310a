// SPDX-License-Identifier: BSD-3-Clause
// The integer grid on which weights lie that were quantized before.
#pragma once

#include <cstdint>
#include <vector>

#include "core/macros.h"
#include "core/parallel.h"

namespace aimetpp::quantizer {

// Above this, float32 values say too little about their grid: some of its many
// candidates fit a few values by chance.
inline constexpr int kMaxGridBitwidth = 8;

// For each channel of [channels, count] values the largest step of which all
// its values are multiples, by -2^(b-1) .. 2^(b-1) - 1 and within two roundings
// of float32; 0 where there is none, or where so few different values show it
// that it may be there by chance. Throws a value error for a bitwidth outside
// 2..kMaxGridBitwidth.
AIMETPP_API std::vector<float> find_grid_steps(
    const float* values, std::int64_t channels, std::int64_t count,
    int bitwidth, const ParallelFor& parallel_for = serial_for);

}  // namespace aimetpp::quantizer
