// SPDX-License-Identifier: BSD-3-Clause
// fake_quantize on several grids, with x read from memory once.
#include <ATen/ops/empty_like.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/library.h>

#include <vector>

#include "ops/fake_quant.h"
#include "ops/fake_quant_call.h"
#include "ops/parallel.h"
#include "ops/slabs.h"

namespace aimetpp::ops {

std::size_t ManyArguments::count() const {
  TORCH_CHECK_VALUE(
      max.size() == min.size() && grid.size() == min.size() &&
          symmetric.size() == min.size(),
      "fake_quantize_many: min, max, grid and symmetric must be of one length, "
      "got ",
      min.size(), ", ", max.size(), ", ", grid.size(), " and ",
      symmetric.size());
  return min.size();
}

namespace {

constexpr QuantMode kMode = QuantMode::fake_quantize;
using OptionalAxis = std::optional<std::int64_t>;

std::vector<at::Tensor> many_cpu(const at::Tensor& x, at::TensorList min,
                                 at::TensorList max, at::TensorList grid,
                                 const c10::List<bool>& symmetric,
                                 OptionalAxis channel_axis) {
  const ManyArguments arguments{x, min, max, grid, symmetric, channel_axis};
  std::vector<at::Tensor> results;
  std::vector<PreparedCall> calls;
  for (std::size_t i = 0; i < arguments.count(); ++i) {
    check_arguments(kMode, arguments.at(i));
    results.push_back(empty_result(x));
    calls.push_back(prepare(kMode, arguments.at(i), results[i]));
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

std::vector<at::Tensor> many_meta(const at::Tensor& x, at::TensorList min,
                                  at::TensorList max, at::TensorList grid,
                                  const c10::List<bool>& symmetric,
                                  OptionalAxis channel_axis) {
  const ManyArguments arguments{x, min, max, grid, symmetric, channel_axis};
  std::vector<at::Tensor> results;
  for (std::size_t i = 0; i < arguments.count(); ++i) {
    check_arguments(kMode, arguments.at(i));
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
