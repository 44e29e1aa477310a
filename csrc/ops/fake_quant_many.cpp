// SPDX-License-Identifier: BSD-3-Clause
// fake_quantize on several grids, with x read from memory once.
#include <ATen/core/List.h>
#include <ATen/ops/empty_like.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/library.h>

#include <vector>

#include "ops/fake_quant.h"
#include "ops/fake_quant_call.h"
#include "ops/parallel.h"
#include "ops/slabs.h"

namespace aimetpp::ops {
namespace {

constexpr QuantMode kMode = QuantMode::fake_quantize;
using OptionalAxis = std::optional<std::int64_t>;

void check_counts(at::TensorList min, at::TensorList max, at::TensorList grid,
                  const c10::List<bool>& symmetric) {
  TORCH_CHECK_VALUE(
      max.size() == min.size() && grid.size() == min.size() &&
          symmetric.size() == min.size(),
      "fake_quantize_many: min, max, grid and symmetric must be of one length, "
      "got ",
      min.size(), ", ", max.size(), ", ", grid.size(), " and ",
      symmetric.size());
}

std::vector<at::Tensor> many_cpu(const at::Tensor& x, at::TensorList min,
                                 at::TensorList max, at::TensorList grid,
                                 const c10::List<bool>& symmetric,
                                 OptionalAxis channel_axis) {
  check_counts(min, max, grid, symmetric);
  std::vector<at::Tensor> results;
  std::vector<PreparedCall> calls;
  for (std::size_t i = 0; i < min.size(); ++i) {
    const QuantArguments arguments{x,       min[i],       max[i],
                                   grid[i], symmetric[i], channel_axis};
    check_arguments(kMode, arguments);
    results.push_back(empty_result(x));
    calls.push_back(prepare(kMode, arguments, results[i]));
    check_grid_values(kMode, calls[i].grid);
  }
  if (results.empty()) return results;
  const OptionalAxis axis =
      wrapped_axis("fake_quantize_many", "x", x, channel_axis);
  const bool is_dense = x.is_non_overlapping_and_dense();
  for (const Slab& slab :
       slabs_of(results[0].sizes(), results[0].strides(), axis)) {
    const at::Tensor part = view_of(x, slab);
    const at::Tensor values =
        is_dense ? part : at::empty_like(view_of(results[0], slab)).copy_(part);
    for (std::size_t i = 0; i < calls.size(); ++i) {
      kernels::cpu::transform(
          call_of(calls[i].call, slab), values.const_data_ptr(),
          view_of(results[i], slab).mutable_data_ptr(), at_parallel_for);
    }
  }
  return results;
}

// One after another; what fits into the device's cache is read once.
std::vector<at::Tensor> many_cuda(const at::Tensor& x, at::TensorList min,
                                  at::TensorList max, at::TensorList grid,
                                  const c10::List<bool>& symmetric,
                                  OptionalAxis channel_axis) {
  check_counts(min, max, grid, symmetric);
  std::vector<at::Tensor> results;
  for (std::size_t i = 0; i < min.size(); ++i) {
    results.push_back(
        fake_quantize(x, min[i], max[i], grid[i], symmetric[i], channel_axis));
  }
  return results;
}

std::vector<at::Tensor> many_meta(const at::Tensor& x, at::TensorList min,
                                  at::TensorList max, at::TensorList grid,
                                  const c10::List<bool>& symmetric,
                                  OptionalAxis channel_axis) {
  check_counts(min, max, grid, symmetric);
  std::vector<at::Tensor> results;
  for (std::size_t i = 0; i < min.size(); ++i) {
    check_arguments(kMode,
                    {x, min[i], max[i], grid[i], symmetric[i], channel_axis});
    results.push_back(at::empty_like(x));
  }
  return results;
}

TORCH_LIBRARY_FRAGMENT(aimetpp, m) {
  m.def(
      "fake_quantize_many(Tensor x, Tensor[] min, Tensor[] max, Tensor[] grid, "
      "bool[] symmetric, int? channel_axis=None) -> Tensor[]",
      {at::Tag::pt2_compliant_tag});
}

TORCH_LIBRARY_IMPL(aimetpp, CPU, m) { m.impl("fake_quantize_many", &many_cpu); }

TORCH_LIBRARY_IMPL(aimetpp, CUDA, m) {
  m.impl("fake_quantize_many", &many_cuda);
}

TORCH_LIBRARY_IMPL(aimetpp, Meta, m) {
  m.impl("fake_quantize_many", &many_meta);
}

// For searches over precisions: asking for a gradient raises.
TORCH_LIBRARY_IMPL(aimetpp, Autograd, m) {
  m.impl("fake_quantize_many",
         torch::autograd::autogradNotImplementedFallback());
}

}  // namespace
}  // namespace aimetpp::ops
