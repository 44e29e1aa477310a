// SPDX-License-Identifier: BSD-3-Clause
// Counts values into the bins of a histogram.
#pragma once

#include <cstdint>

#include "core/extremes.h"
#include "core/isa.h"
#include "core/parallel.h"
#include "quantizer/histogram.h"

namespace aimetpp::quantizer {

// Counts values, none of them NaN; what lies outside goes to the end bins. Bin
// of x: floor((x - lo) * num_bins / (hi - lo)), in float32, as in torch.histc.
void count_values(Histogram& histogram, const float* data, std::int64_t count,
                  const ParallelFor& parallel_for = serial_for,
                  Isa isa = best_isa());

// Extremes and counts in one pass over the values. It is in vain, and changes
// nothing, where a value is not finite or make_room would extend the histogram:
// then `counted` is false and the scan complete nevertheless. `histogram` must
// have a range.
struct CountedScan {
  Scan scan;
  bool counted = false;
};
CountedScan scan_and_count(Histogram& histogram, const float* data,
                           std::int64_t count,
                           const ParallelFor& parallel_for = serial_for,
                           Isa isa = best_isa());

}  // namespace aimetpp::quantizer
