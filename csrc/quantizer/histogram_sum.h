// SPDX-License-Identifier: BSD-3-Clause
// The sum of two histograms, as if one had counted the values of both.
#pragma once

#include "quantizer/histogram.h"

namespace aimetpp::quantizer {

// Adds the counts of `other`, whose values count as those that came later, to
// `histogram`, of as many bins. Where both have the same range the sum is
// exact. Elsewhere the range is extended as make_room does, and a count is
// split between the bins that its own bin meets, in proportion and rounded to
// whole numbers: it lies at most one bin of `other` from where its value is.
void add_histogram(Histogram& histogram, const Histogram& other,
                   double max_growth);

}  // namespace aimetpp::quantizer
