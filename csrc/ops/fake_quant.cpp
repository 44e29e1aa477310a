// SPDX-License-Identifier: BSD-3-Clause
// Schemas, argument checks, and the CPU and Meta kernels of the ops.
#include "ops/fake_quant.h"

#include <ATen/EmptyTensor.h>
#include <ATen/WrapDimUtils.h>
#include <ATen/ops/empty_like.h>
#include <torch/library.h>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <cstdint>

#include "ops/fake_quant_call.h"
#include "ops/parallel.h"
#include "ops/slabs.h"
#include "ops/strides.h"

namespace aimetpp::ops {

// ---------------------------------------------------------------- arguments

const char* op_name(QuantMode mode) {
  switch (mode) {
    case QuantMode::fake_quantize:
      return "fake_quantize";
    case QuantMode::quantize:
      return "quantize";
    case QuantMode::dequantize:
      return "dequantize";
  }
  return "";
}

namespace {

using kernels::Storage;
using OptionalAxis = std::optional<std::int64_t>;
using Gradients = std::tuple<at::Tensor, at::Tensor, at::Tensor>;

// What the first argument is called in the schema.
const char* input_name(QuantMode mode) {
  return mode == QuantMode::dequantize ? "q" : "x";
}

void check_range_end(QuantMode mode, const char* name, const at::Tensor& end,
                     const at::Tensor& x, OptionalAxis axis) {
  TORCH_CHECK_TYPE(
      end.scalar_type() == at::kFloat || end.scalar_type() == at::kDouble,
      op_name(mode), ": ", name, " must be float32 or float64, got ",
      end.scalar_type());
  TORCH_CHECK_VALUE(end.device() == x.device(), op_name(mode), ": ", name,
                    " must be on ", input_name(mode), "'s device ", x.device(),
                    ", got ", end.device());
  if (axis) {
    TORCH_CHECK_VALUE(end.sym_numel() == x.sym_size(*axis), op_name(mode), ": ",
                      name, " must have ", x.sym_size(*axis), " elements (",
                      input_name(mode), ".size(", *axis, ")), got ",
                      end.sym_numel());
  } else {
    TORCH_CHECK_VALUE(end.sym_numel() == 1, op_name(mode), ": ", name,
                      " must have 1 element where channel_axis is not given, "
                      "got ",
                      end.sym_numel());
  }
}

}  // namespace

std::optional<Storage> storage_of(at::ScalarType dtype) {
  switch (dtype) {
    case at::kFloat:
      return Storage::float32;
    case at::kDouble:
      return Storage::float64;
    case at::kHalf:
      return Storage::float16;
    case at::kBFloat16:
      return Storage::bfloat16;
    default:
      return std::nullopt;
  }
}

OptionalAxis wrapped_axis(const char* op, const char* input,
                          const at::Tensor& x, OptionalAxis channel_axis) {
  if (!channel_axis) return std::nullopt;
  const std::int64_t axis = *channel_axis;
  const std::int64_t dim = x.dim();
  TORCH_CHECK_INDEX(axis >= -dim && axis < dim, op,
                    ": channel_axis must be in [", -dim, ", ", dim - 1,
                    "] for ", input, " of ", dim, " dimensions, got ", axis);
  return axis < 0 ? axis + dim : axis;
}

// Its strides say where its channels lie in memory, whatever the memory format:
// what has a smaller stride is inside, the rest outside.
kernels::ChannelLayout layout_of(const at::Tensor& dense, OptionalAxis axis) {
  const std::int64_t numel = dense.numel();
  if (!axis || dense.size(*axis) == 1) return {1, 1, numel};
  const std::int64_t channels = dense.size(*axis);
  if (numel == 0) return {0, channels, 1};
  const std::int64_t inner = dense.stride(*axis);
  return {numel / (channels * inner), channels, inner};
}

void check_arguments(QuantMode mode, const QuantArguments& arguments) {
  const auto& [x, min, max, grid, symmetric, channel_axis] = arguments;
  const char* op = op_name(mode);
  TORCH_CHECK_TYPE(
      storage_of(x.scalar_type()).has_value(), op, ": ", input_name(mode),
      " must be float32, float64, float16 or bfloat16, got ", x.scalar_type());
  const OptionalAxis axis = wrapped_axis(op_name(mode), input_name(mode),
                                         arguments.x, arguments.channel_axis);
  check_range_end(mode, "min", min, x, axis);
  check_range_end(mode, "max", max, x, axis);
  TORCH_CHECK_TYPE(min.scalar_type() == max.scalar_type(), op,
                   ": min and max must have one dtype, got ", min.scalar_type(),
                   " and ", max.scalar_type());
  TORCH_CHECK_TYPE(grid.scalar_type() == at::kLong, op,
                   ": grid must be int64, got ", grid.scalar_type());
  TORCH_CHECK_VALUE(grid.dim() == 1 && grid.sym_size(0) == 2, op,
                    ": grid must hold 2 elements (qmin, qmax), got shape ",
                    grid.sym_sizes());
  TORCH_CHECK_VALUE(grid.device() == x.device(), op, ": grid must be on ",
                    input_name(mode), "'s device ", x.device(), ", got ",
                    grid.device());
}

void check_grad(QuantMode mode, const at::Tensor& grad, const at::Tensor& x) {
  TORCH_CHECK_VALUE(grad.sym_sizes() == x.sym_sizes(), op_name(mode),
                    "_backward: grad must have ", input_name(mode), "'s shape ",
                    x.sym_sizes(), ", got ", grad.sym_sizes());
  TORCH_CHECK_TYPE(grad.scalar_type() == x.scalar_type(), op_name(mode),
                   "_backward: grad must have ", input_name(mode), "'s dtype ",
                   x.scalar_type(), ", got ", grad.scalar_type());
  TORCH_CHECK_VALUE(grad.device() == x.device(), op_name(mode),
                    "_backward: grad must be on ", input_name(mode),
                    "'s device ", x.device(), ", got ", grad.device());
}

PreparedCall prepare(QuantMode mode, const QuantArguments& arguments,
                     const at::Tensor& dense) {
  check_arguments(mode, arguments);
  PreparedCall prepared{arguments.min.contiguous(),
                        arguments.max.contiguous(),
                        arguments.grid.contiguous(),
                        {}};
  kernels::QuantCall& call = prepared.call;
  call.mode = mode;
  call.storage = *storage_of(arguments.x.scalar_type());
  call.range_storage = *storage_of(prepared.min.scalar_type());
  call.symmetric = arguments.symmetric;
  call.layout =
      layout_of(dense, wrapped_axis(op_name(mode), input_name(mode),
                                    arguments.x, arguments.channel_axis));
  call.min = prepared.min.const_data_ptr();
  call.max = prepared.max.const_data_ptr();
  call.grid = prepared.grid.const_data_ptr<std::int64_t>();
  return prepared;
}

at::Tensor empty_range_grad(const at::Tensor& range_end) {
  if (range_end.is_cpu()) {  // as in empty_result
    return at::detail::empty_cpu(range_end.sizes(), range_end.scalar_type());
  }
  return at::empty_like(range_end, at::MemoryFormat::Contiguous);
}

at::Tensor empty_result(const at::Tensor& x) {
  // The dispatcher's way costs as much as a forward of some thousand elements.
  const bool is_plain =
      x.is_cpu() && x.numel() > 0 && x.is_non_overlapping_and_dense();
  at::Tensor result = is_plain ? at::Tensor(at::detail::empty_strided_cpu(
                                     x.sizes(), x.strides(), x.scalar_type()))
                               : at::empty_like(x);
#if defined(__linux__)
  constexpr std::uintptr_t kPage = 4096;
  constexpr std::size_t kWorthIt = std::size_t{4} << 20;
  if (result.nbytes() >= kWorthIt) {
    const auto begin =
        reinterpret_cast<std::uintptr_t>(result.mutable_data_ptr());
    const std::uintptr_t first = (begin + kPage - 1) / kPage * kPage;
    const std::uintptr_t last = (begin + result.nbytes()) / kPage * kPage;
    // Advice: where it is not taken, nothing is lost.
    static_cast<void>(
        madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE));
  }
#endif
  return result;
}

void check_grid_values(QuantMode mode, const at::Tensor& grid) {
  const auto* ends = grid.const_data_ptr<std::int64_t>();
  TORCH_CHECK_VALUE(ends[0] < ends[1], op_name(mode),
                    ": grid must have qmin < qmax, got [", ends[0], ", ",
                    ends[1], "]");
}

namespace {

// ---------------------------------------------------------------- CPU, Meta

template <QuantMode mode>
at::Tensor forward_cpu(const at::Tensor& x, const at::Tensor& min,
                       const at::Tensor& max, const at::Tensor& grid,
                       bool symmetric, OptionalAxis channel_axis) {
  const QuantArguments arguments{x, min, max, grid, symmetric, channel_axis};
  at::Tensor y = empty_result(x);
  const bool is_dense = x.is_non_overlapping_and_dense();
  const PreparedCall prepared = prepare(mode, arguments, is_dense ? x : y);
  check_grid_values(mode, prepared.grid);
  if (is_dense) {
    kernels::cpu::transform(prepared.call, x.const_data_ptr(),
                            y.mutable_data_ptr(), at_parallel_for);
  } else {
    transform_gathered(
        prepared.call, x, y,
        wrapped_axis(op_name(mode), input_name(mode), x, channel_axis));
  }
  return y;
}

void fake_quantize_inplace_cpu(const at::Tensor& x, const at::Tensor& min,
                               const at::Tensor& max, const at::Tensor& grid,
                               bool symmetric, OptionalAxis channel_axis) {
  constexpr QuantMode kMode = QuantMode::fake_quantize;
  const QuantArguments arguments{x, min, max, grid, symmetric, channel_axis};
  const bool is_dense = x.is_non_overlapping_and_dense();
  const at::Tensor dense = dense_like(x);
  const PreparedCall prepared = prepare(kMode, arguments, dense);
  check_grid_values(kMode, prepared.grid);
  if (is_dense) {
    kernels::cpu::transform(prepared.call, x.const_data_ptr(),
                            x.mutable_data_ptr(), at_parallel_for);
  } else {
    transform_in_place(
        prepared.call, x, dense.strides(),
        wrapped_axis(op_name(kMode), input_name(kMode), x, channel_axis));
  }
}

template <QuantMode mode>
Gradients backward_cpu(const at::Tensor& grad, const at::Tensor& x,
                       const at::Tensor& min, const at::Tensor& max,
                       const at::Tensor& grid, bool symmetric,
                       OptionalAxis channel_axis) {
  const at::Tensor dx = empty_result(x);
  const PreparedCall prepared =
      prepare(mode, {x, min, max, grid, symmetric, channel_axis}, dx);
  check_grad(mode, grad, x);
  check_grid_values(mode, prepared.grid);
  at::Tensor dmin = empty_range_grad(min);
  at::Tensor dmax = empty_range_grad(max);
  kernels::cpu::gradient(prepared.call, source_of(grad, dx.strides()),
                         source_of(x, dx.strides()), dx.mutable_data_ptr(),
                         dmin.mutable_data_ptr(), dmax.mutable_data_ptr(),
                         at_parallel_for);
  return {dx, dmin, dmax};
}

std::tuple<at::Tensor, at::Tensor> backward_inplace_cpu(
    const at::Tensor& grad, const at::Tensor& x, const at::Tensor& min,
    const at::Tensor& max, const at::Tensor& grid, bool symmetric,
    OptionalAxis channel_axis) {
  constexpr QuantMode kMode = QuantMode::fake_quantize;
  const at::Tensor dense = dense_like(x);
  const PreparedCall prepared =
      prepare(kMode, {x, min, max, grid, symmetric, channel_axis}, dense);
  check_grad(kMode, grad, x);
  check_grid_values(kMode, prepared.grid);
  at::Tensor dmin = empty_range_grad(min);
  at::Tensor dmax = empty_range_grad(max);
  kernels::cpu::gradient(
      prepared.call, source_of(grad, dense.strides()),
      source_of(x, dense.strides()), target_of(grad, dense.strides()),
      dmin.mutable_data_ptr(), dmax.mutable_data_ptr(), at_parallel_for);
  return {dmin, dmax};
}

template <QuantMode mode>
at::Tensor forward_meta(const at::Tensor& x, const at::Tensor& min,
                        const at::Tensor& max, const at::Tensor& grid,
                        bool symmetric, OptionalAxis channel_axis) {
  check_arguments(mode, {x, min, max, grid, symmetric, channel_axis});
  return at::empty_like(x);
}

void fake_quantize_inplace_meta(const at::Tensor& x, const at::Tensor& min,
                                const at::Tensor& max, const at::Tensor& grid,
                                bool symmetric, OptionalAxis channel_axis) {
  check_arguments(QuantMode::fake_quantize,
                  {x, min, max, grid, symmetric, channel_axis});
}

std::tuple<at::Tensor, at::Tensor> backward_inplace_meta(
    const at::Tensor& grad, const at::Tensor& x, const at::Tensor& min,
    const at::Tensor& max, const at::Tensor& grid, bool symmetric,
    OptionalAxis channel_axis) {
  constexpr QuantMode kMode = QuantMode::fake_quantize;
  check_arguments(kMode, {x, min, max, grid, symmetric, channel_axis});
  check_grad(kMode, grad, x);
  return {empty_range_grad(min), empty_range_grad(max)};
}

template <QuantMode mode>
Gradients backward_meta(const at::Tensor& grad, const at::Tensor& x,
                        const at::Tensor& min, const at::Tensor& max,
                        const at::Tensor& grid, bool symmetric,
                        OptionalAxis channel_axis) {
  check_arguments(mode, {x, min, max, grid, symmetric, channel_axis});
  check_grad(mode, grad, x);
  return {at::empty_like(x), empty_range_grad(min), empty_range_grad(max)};
}

// ------------------------------------------------------------- registration

TORCH_LIBRARY(aimetpp, m) {
  const auto define = [&m](const std::string& schema) {
    m.def(schema.c_str(), {at::Tag::pt2_compliant_tag});
  };
  define("site(Tensor(a) x, int id) -> Tensor(a)");
  // TorchScript takes it for an effect: of a constant its passes would leave
  // the value and no marker.
  m.def(torch::schema("constant_site(Tensor x, int id) -> Tensor",
                      c10::AliasAnalysisKind::CONSERVATIVE),
        {at::Tag::pt2_compliant_tag});
  const std::string range =
      "Tensor min, Tensor max, Tensor grid, bool symmetric, "
      "int? channel_axis=None";
  // Returns nothing: torch.compile functionalizes no op that returns its input.
  define("fake_quantize_(Tensor(a!) x, " + range + ") -> ()");
  // The gradient to x takes the place of `grad`.
  define("fake_quantize_backward_(Tensor(a!) grad, Tensor x, " + range +
         ") -> (Tensor, Tensor)");
  for (const QuantMode mode :
       {QuantMode::fake_quantize, QuantMode::quantize, QuantMode::dequantize}) {
    const std::string name = op_name(mode);
    const std::string input = std::string("Tensor ") + input_name(mode);
    define(name + "(" + input + ", " + range + ") -> Tensor");
    define(name + "_backward(Tensor grad, " + input + ", " + range +
           ") -> (Tensor, Tensor, Tensor)");
  }
}

TORCH_LIBRARY_IMPL(aimetpp, CPU, m) {
  m.impl("fake_quantize", &forward_cpu<QuantMode::fake_quantize>);
  m.impl("fake_quantize_", &fake_quantize_inplace_cpu);
  m.impl("quantize", &forward_cpu<QuantMode::quantize>);
  m.impl("dequantize", &forward_cpu<QuantMode::dequantize>);
  m.impl("fake_quantize_backward", &backward_cpu<QuantMode::fake_quantize>);
  m.impl("fake_quantize_backward_", &backward_inplace_cpu);
  m.impl("quantize_backward", &backward_cpu<QuantMode::quantize>);
  m.impl("dequantize_backward", &backward_cpu<QuantMode::dequantize>);
}

TORCH_LIBRARY_IMPL(aimetpp, Meta, m) {
  m.impl("fake_quantize", &forward_meta<QuantMode::fake_quantize>);
  m.impl("fake_quantize_", &fake_quantize_inplace_meta);
  m.impl("quantize", &forward_meta<QuantMode::quantize>);
  m.impl("dequantize", &forward_meta<QuantMode::dequantize>);
  m.impl("fake_quantize_backward", &backward_meta<QuantMode::fake_quantize>);
  m.impl("fake_quantize_backward_", &backward_inplace_meta);
  m.impl("quantize_backward", &backward_meta<QuantMode::quantize>);
  m.impl("dequantize_backward", &backward_meta<QuantMode::dequantize>);
}

}  // namespace
}  // namespace aimetpp::ops
