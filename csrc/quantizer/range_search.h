// SPDX-License-Identifier: BSD-3-Clause
// The range of least squared quantization error over a histogram.
#pragma once

#include "core/isa.h"
#include "quantizer/encoding.h"
#include "quantizer/histogram.h"

namespace aimetpp::quantizer {

// The grid of candidates, and the weight of the error of clipped values.
struct SearchSettings {
  int asymmetric_deltas;
  int symmetric_deltas;
  int offsets;  // the one of the observed range included
  float clipping_weight;
};

// Those of AIMET's TF-enhanced analyzer.
inline constexpr SearchSettings kTfEnhancedSearch{17, 101, 21, 3.0F};
inline constexpr SearchSettings kMseSearch{65, 401, 41, 1.0F};

// Tries pairs (delta, offset), standing for the range [offset, offset + N] *
// delta with N the steps of the grid, and returns the first of those with the
// least sum over the bins of count * (fake-quantized midpoint - midpoint)^2.
//
//   asymmetric: delta = k / (deltas - 1) of the observed range's, k
//   = 1..deltas;
//     offset = spread evenly over -N..0, and the observed range's. A range that
//     leaves the observed one is clamped to it.
//   symmetric: delta = k / (deltas - 1) of the delta of twice the largest
//     magnitude, offset = -ceil(N / 2).
//   unsigned_symmetric without negative values: delta = k / (deltas - 1) of
//     max / N, offset = 0.
//
// Zero is a point of every grid tried. The histogram must hold values.
// Source: AIMET's SQNR encoding analyzer.
Range search_range(const Histogram& histogram, int bitwidth, Symmetry symmetry,
                   const SearchSettings& settings, Isa isa = best_isa());

// The range of least squared error of those whose scale is a power of two, the
// smallest of scales that are as good; errors as above, clipped or not. All
// scales are tried from the one that clips nothing down to 2^-31 times it:
// a larger one's grid is part of that one's. For symmetries with a fixed zero,
// so not for Symmetry::asymmetric, which is a value error.
Range search_power_of_two_range(const Histogram& histogram, int bitwidth,
                                Symmetry symmetry, Isa isa = best_isa());

}  // namespace aimetpp::quantizer
