// SPDX-License-Identifier: BSD-3-Clause
// The squared error that quantization makes of a histogram's values.
#pragma once

#include <cstddef>
#include <vector>

#include "core/isa.h"
#include "quantizer/histogram.h"

namespace aimetpp::quantizer {

// A range to try: [offset, offset + steps] * delta. In float32, as the
// reference's tensors: its candidates are ours to the last bit.
struct Choice {
  float delta;
  float offset;
};

struct Weighing {
  float steps;            // of the grid
  float clipping_weight;  // by which the error of clipped values counts more
};

// Which of `choices` has the least sum over the bins of count * (fake-quantized
// midpoint - midpoint)^2; of those as good, the first. They are tried from the
// one at `promising` on, which makes a difference to the time only. The
// histogram must hold values.
std::size_t least_noise(const std::vector<Choice>& choices,
                        std::size_t promising, const Histogram& histogram,
                        const Weighing& weighing, Isa isa);

}  // namespace aimetpp::quantizer
