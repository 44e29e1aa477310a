// SPDX-License-Identifier: BSD-3-Clause
// fake_quantize into memory that the caller has: the op and its CPU and Meta
// kernels, and what the library itself calls on the CPU, seen by nobody.
#include <ATen/MemoryOverlap.h>
#include <torch/library.h>

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

namespace {

void check_result(const at::Tensor& y, const at::Tensor& x) {
  TORCH_CHECK_VALUE(y.sym_sizes() == x.sym_sizes(),
                    "fake_quantize: out must have x's shape ", x.sym_sizes(),
                    ", got ", y.sym_sizes());
  TORCH_CHECK_TYPE(y.scalar_type() == x.scalar_type(),
                   "fake_quantize: out must have x's dtype ", x.scalar_type(),
                   ", got ", y.scalar_type());
  TORCH_CHECK_VALUE(y.device() == x.device(),
                    "fake_quantize: out must be on x's device ", x.device(),
                    ", got ", y.device());
}

}  // namespace

void check_written(const at::Tensor& y, const at::Tensor& x) {
  check_result(y, x);
  at::assert_no_internal_overlap(y);
  at::assert_no_partial_overlap(y, x);
}

namespace {

void into_cpu(const at::Tensor& y, const at::Tensor& x, const at::Tensor& min,
              const at::Tensor& max, const at::Tensor& grid, bool symmetric,
              std::optional<std::int64_t> channel_axis) {
  check_written(y, x);
  if (x.is_non_overlapping_and_dense() && x.strides() == y.strides()) {
    fake_quantize_into(y, x, min, max, grid, symmetric, channel_axis);
    return;
  }
  check_arguments(QuantMode::fake_quantize,
                  {x, min, max, grid, symmetric, channel_axis});
  y.copy_(x);
  fake_quantize_(y, min, max, grid, symmetric, channel_axis);
}

void into_meta(const at::Tensor& y, const at::Tensor& x, const at::Tensor& min,
               const at::Tensor& max, const at::Tensor& grid, bool symmetric,
               std::optional<std::int64_t> channel_axis) {
  check_result(y, x);
  check_arguments(QuantMode::fake_quantize,
                  {x, min, max, grid, symmetric, channel_axis});
}

TORCH_LIBRARY_FRAGMENT(aimetpp, m) {
  // Returns nothing: torch.compile functionalizes no op that returns its input.
  m.def(
      "fake_quantize_into(Tensor(a!) y, Tensor x, Tensor min, Tensor max, "
      "Tensor grid, bool symmetric, int? channel_axis=None) -> ()",
      {at::Tag::pt2_compliant_tag});
}

TORCH_LIBRARY_IMPL(aimetpp, CPU, m) { m.impl("fake_quantize_into", &into_cpu); }

TORCH_LIBRARY_IMPL(aimetpp, Meta, m) {
  m.impl("fake_quantize_into", &into_meta);
}

}  // namespace
}  // namespace aimetpp::ops
