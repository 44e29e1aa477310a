// SPDX-License-Identifier: BSD-3-Clause
// fake_quantize into memory that the caller has: on the CPU, seen by nobody.
#include <cstdint>
#include <optional>

#include "ops/fake_quant.h"
#include "ops/fake_quant_call.h"
#include "ops/parallel.h"

namespace aimetpp::ops {

void fake_quantize_into(const at::Tensor& y, const at::Tensor& x,
                        const at::Tensor& min, const at::Tensor& max,
                        const at::Tensor& grid, bool symmetric,
                        std::optional<std::int64_t> channel_axis) {
  const PreparedCall prepared =
      prepare(QuantMode::fake_quantize,
              {x, min, max, grid, symmetric, channel_axis}, y);
  check_grid_values(QuantMode::fake_quantize, prepared.grid);
  kernels::cpu::transform(prepared.call, x.const_data_ptr(),
                          y.mutable_data_ptr(), at_parallel_for);
}

void clamped_fake_quantize_into(const at::Tensor& y, const at::Tensor& x,
                                float low, float high, const at::Tensor& min,
                                const at::Tensor& max, const at::Tensor& grid,
                                bool symmetric) {
  constexpr QuantMode kMode = QuantMode::fake_quantize;
  PreparedCall prepared =
      prepare(kMode, {x, min, max, grid, symmetric, std::nullopt}, x);
  check_grid_values(kMode, prepared.grid);
  prepared.call.before = {low, high};
  kernels::cpu::transform(prepared.call, x.const_data_ptr(),
                          y.mutable_data_ptr(), at_parallel_for);
}

}  // namespace aimetpp::ops
