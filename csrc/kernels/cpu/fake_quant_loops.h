// SPDX-License-Identifier: BSD-3-Clause
// The innermost CPU loops: one stretch of memory, no threads, no layout. They
// are always inlined, into one function per instruction set (core/for_isa.h),
// and keep to plain arithmetic that compilers vectorize.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

#include "core/inside_interval.h"
#include "core/quant_math.h"
#include "core/reciprocal_grid.h"
#include "kernels/cpu/storage.h"

// The iterations of the next loop are independent (arrays may be the same one,
// but are never shifted against each other).
#if defined(__clang__)
#define AIMETPP_INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#define AIMETPP_INDEPENDENT _Pragma("GCC ivdep")
#endif

namespace aimetpp::kernels::cpu {

// The grids of the channels, each member an array over channels.
template <typename Compute>
struct GridArrays {
  const Compute* scale;
  const Compute* offset;
  Compute qmin;
  Compute qmax;

  [[nodiscard]] AIMETPP_ALWAYS_INLINE AffineGrid<Compute> at(
      std::int64_t c) const {
    return {scale[c], offset[c], qmin, qmax};
  }
};

// dL/dscale and dL/doffset, up to the factors of finish_sums.
struct Sums {
  double scale = 0;
  double offset = 0;
};

// Terms are summed in runs of kRun elements: in Compute, element i to lane
// i % kLanes, so that at most 8 terms are added before the lane goes to a sum
// in double. A fixed order of additions that a vector register of any width up
// to 512 bits can follow.
constexpr std::size_t kLanes = 16;
constexpr std::size_t kRun = 8 * kLanes;

struct LaneSums {
  std::array<double, kLanes> scale{};
  std::array<double, kLanes> offset{};

  [[nodiscard]] Sums total() const {
    Sums sums;
    for (std::size_t lane = 0; lane < kLanes; ++lane) {
      sums.scale += scale[lane];
      sums.offset += offset[lane];
    }
    return sums;
  }
};

// y[i] = transform(x[i]) for i < n, one grid for all.
template <QuantMode mode, typename Stored, typename Compute>
AIMETPP_ALWAYS_INLINE void transform_span(const Stored* x, Stored* y,
                                          std::int64_t n,
                                          AffineGrid<Compute> grid) {
  AIMETPP_INDEPENDENT
  for (std::int64_t i = 0; i < n; ++i) {
    y[i] = store<Stored>(aimetpp::transform<mode>(load<Compute>(x[i]), grid));
  }
}

// y[i] = fake_quantize(clamp(x[i])).
template <typename Stored, typename Compute>
AIMETPP_ALWAYS_INLINE void clamped_span(const Stored* x, Stored* y,
                                        std::int64_t n,
                                        AffineGrid<Compute> grid, Compute low,
                                        Compute high) {
  AIMETPP_INDEPENDENT
  for (std::int64_t i = 0; i < n; ++i) {
    y[i] = store<Stored>(aimetpp::transform<QuantMode::fake_quantize>(
        clamp_keep_nan(load<Compute>(x[i]), low, high), grid));
  }
}

// fake_quantize where the grid allows it.
template <bool by_product>
AIMETPP_ALWAYS_INLINE void reciprocal_span(const float* x, float* y,
                                           std::int64_t n,
                                           ReciprocalGrid grid) {
  AIMETPP_INDEPENDENT
  for (std::int64_t i = 0; i < n; ++i) {
    y[i] = fake_quantize_by_reciprocal<by_product>(x[i], grid);
  }
}

// y[c] = transform(x[c]) for c < n, grid c for element c.
template <QuantMode mode, typename Stored, typename Compute>
AIMETPP_ALWAYS_INLINE void transform_row(const Stored* x, Stored* y,
                                         std::int64_t n,
                                         GridArrays<Compute> grids) {
  AIMETPP_INDEPENDENT
  for (std::int64_t c = 0; c < n; ++c) {
    y[c] = store<Stored>(
        aimetpp::transform<mode>(load<Compute>(x[c]), grids.at(c)));
  }
}

// Adds the first n terms of a run.
template <typename Compute>
AIMETPP_ALWAYS_INLINE void add_run(const std::array<Compute, kRun>& terms,
                                   std::size_t n,
                                   std::array<double, kLanes>* sums) {
  std::array<Compute, kLanes> lanes{};
  const std::size_t whole = n - n % kLanes;
  for (std::size_t i = 0; i < whole; i += kLanes) {
    for (std::size_t lane = 0; lane < kLanes; ++lane) {
      lanes[lane] += terms[i + lane];
    }
  }
  for (std::size_t i = whole; i < n; ++i) lanes[i - whole] += terms[i];
  for (std::size_t lane = 0; lane < kLanes; ++lane) {
    (*sums)[lane] += static_cast<double>(lanes[lane]);
  }
}

// dx[i] and the sums over i < n, one grid for all.
template <QuantMode mode, typename Stored, typename Compute>
AIMETPP_ALWAYS_INLINE void gradient_span(const Stored* grad, const Stored* x,
                                         Stored* dx, std::int64_t n,
                                         AffineGrid<Compute> grid,
                                         LaneSums* sums) {
  constexpr auto kStep = static_cast<std::int64_t>(kRun);
  std::array<Compute, kRun> scale_terms;
  std::array<Compute, kRun> offset_terms;
  LaneSums local = *sums;
  for (std::int64_t begin = 0; begin < n; begin += kStep) {
    const std::int64_t size = std::min(kStep, n - begin);
    AIMETPP_INDEPENDENT
    for (std::int64_t i = 0; i < size; ++i) {
      const auto element = aimetpp::gradient<mode>(
          load<Compute>(grad[begin + i]), load<Compute>(x[begin + i]), grid);
      dx[begin + i] = store<Stored>(element.x);
      scale_terms[static_cast<std::size_t>(i)] = element.scale_term;
      offset_terms[static_cast<std::size_t>(i)] = element.offset_term;
    }
    add_run(scale_terms, static_cast<std::size_t>(size), &local.scale);
    add_run(offset_terms, static_cast<std::size_t>(size), &local.offset);
  }
  *sums = local;
}

// dx[i] = grad[i] where x[i] is inside, else 0.
template <typename Stored, typename Loaded, typename Compute>
AIMETPP_ALWAYS_INLINE void mask_span(const Stored* grad, const Loaded* x,
                                     Stored* dx, std::int64_t n,
                                     InsideInterval<Compute> inside) {
  AIMETPP_INDEPENDENT
  for (std::int64_t i = 0; i < n; ++i) {
    dx[i] = zero_stored_unless(inside.contains(load<Compute>(x[i])), grad[i]);
  }
}

// The same, interval c for element c.
template <typename Stored, typename Compute>
AIMETPP_ALWAYS_INLINE void mask_row(const Stored* grad, const Stored* x,
                                    Stored* dx, std::int64_t n,
                                    const InsideInterval<Compute>* inside) {
  AIMETPP_INDEPENDENT
  for (std::int64_t c = 0; c < n; ++c) {
    dx[c] =
        zero_stored_unless(inside[c].contains(load<Compute>(x[c])), grad[c]);
  }
}

// dx[c] and one more term for the sums of channel c, for c < n.
template <QuantMode mode, typename Stored, typename Compute>
AIMETPP_ALWAYS_INLINE void gradient_row(const Stored* grad, const Stored* x,
                                        Stored* dx, std::int64_t n,
                                        GridArrays<Compute> grids,
                                        double* scale_sums,
                                        double* offset_sums) {
  AIMETPP_INDEPENDENT
  for (std::int64_t c = 0; c < n; ++c) {
    const auto element = aimetpp::gradient<mode>(
        load<Compute>(grad[c]), load<Compute>(x[c]), grids.at(c));
    dx[c] = store<Stored>(element.x);
    scale_sums[c] += static_cast<double>(element.scale_term);
    offset_sums[c] += static_cast<double>(element.offset_term);
  }
}

}  // namespace aimetpp::kernels::cpu
