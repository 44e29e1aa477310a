// SPDX-License-Identifier: BSD-3-Clause
#include "quantizer/histogram_sum.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

namespace aimetpp::quantizer {
namespace {

int bin_at(const Histogram& histogram, double value) {
  const double lo = histogram.edge(0);
  const double width = histogram.edge(histogram.num_bins()) - lo;
  const double bin = std::floor((value - lo) / width * histogram.num_bins());
  return static_cast<int>(std::clamp(bin, 0.0, histogram.num_bins() - 1.0));
}

// Spreads a count evenly over [start, end]; what lies outside goes to the end
// bins.
void spread(double count, double start, double end, Histogram* histogram) {
  const int last = bin_at(*histogram, end);
  double given = 0;
  for (int bin = bin_at(*histogram, start); bin <= last; ++bin) {
    const double share =
        bin == last ? 1.0 : (histogram->edge(bin + 1) - start) / (end - start);
    const double upto = std::rint(count * std::clamp(share, 0.0, 1.0));
    histogram->counts[static_cast<std::size_t>(bin)] += upto - given;
    given = upto;
  }
}

}  // namespace

void add_histogram(Histogram& histogram, const Histogram& other,
                   double max_growth) {
  if (other.counts.empty()) return;
  if (histogram.counts.empty()) {
    histogram = other;
    return;
  }
  if (histogram.lo != other.lo || histogram.hi != other.hi) {
    make_room(histogram, {other.lo, other.hi}, histogram.num_bins(),
              max_growth);
  }
  const bool same = histogram.lo == other.lo && histogram.hi == other.hi;
  for (int bin = 0; bin < other.num_bins(); ++bin) {
    const double count = other.counts[static_cast<std::size_t>(bin)];
    if (count == 0) continue;
    if (same) {
      histogram.counts[static_cast<std::size_t>(bin)] += count;
    } else if (other.is_point()) {
      spread(count, other.lo, other.lo, &histogram);
    } else {
      spread(count, other.edge(bin), other.edge(bin + 1), &histogram);
    }
  }
}

}  // namespace aimetpp::quantizer
