// SPDX-License-Identifier: BSD-3-Clause
// The torch ops as C++ functions: each goes through the dispatcher, so that
// autograd, tracing, CUDA and fake tensors work as from Python
// (torch.ops.aimetpp.*). The formula is in core/quant_math.h.
//
// Arguments common to all:
//   x             any shape; float32, float64, float16 or bfloat16
//   min, max      float32 or float64; one element, or x.size(channel_axis)
//                 elements in any shape where channel_axis is given
//   grid          int64 [2]: qmin, qmax with qmin < qmax, on x's device
//   symmetric     whether the offset is fixed by the grid instead of by min
//   channel_axis  the axis with one range per index, negative from the end;
//                 none: one range for all of x
// A wrong argument is a TypeError, ValueError or IndexError that names it.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <tuple>

#include "core/macros.h"

namespace aimetpp::ops {

// x rounded to the grid and back; x's shape, dtype and memory format.
// Gradients: straight through to x, closed forms to min and max.
AIMETPP_API at::Tensor fake_quantize(
    const at::Tensor& x, const at::Tensor& min, const at::Tensor& max,
    const at::Tensor& grid, bool symmetric,
    std::optional<std::int64_t> channel_axis = std::nullopt);

// The same, written over x. No gradient: an error where one is asked for.
AIMETPP_API void fake_quantize_(
    const at::Tensor& x, const at::Tensor& min, const at::Tensor& max,
    const at::Tensor& grid, bool symmetric,
    std::optional<std::int64_t> channel_axis = std::nullopt);

// The same, written over y, which is x in sizes, strides and dtype but not in
// memory; dense, both on the CPU. Nobody sees it: no dispatcher, no gradient.
AIMETPP_API void fake_quantize_into(
    const at::Tensor& y, const at::Tensor& x, const at::Tensor& min,
    const at::Tensor& max, const at::Tensor& grid, bool symmetric,
    std::optional<std::int64_t> channel_axis = std::nullopt);

// fake_quantize_into of clamp(x, low, high), an activation function such as
// relu in the same pass; y may be x. Bits are those of the two ops one after
// another where low and high are numbers of x's dtype.
AIMETPP_API void clamped_fake_quantize_into(const at::Tensor& y,
                                            const at::Tensor& x, float low,
                                            float high, const at::Tensor& min,
                                            const at::Tensor& max,
                                            const at::Tensor& grid,
                                            bool symmetric);

// A tensor like x for a result that is about to be written. Where that needs
// fresh memory of tens of megabytes, most of its cost would be page faults: one
// for each 4 KiB, or for 2 MiB if the system may use huge pages.
[[nodiscard]] AIMETPP_API at::Tensor empty_result(const at::Tensor& x);

// The integers of the grid, in x's floating dtype (which must be able to hold
// them: float16 up to 2048, bfloat16 up to 256, float32 up to 2^24).
AIMETPP_API at::Tensor quantize(
    const at::Tensor& x, const at::Tensor& min, const at::Tensor& max,
    const at::Tensor& grid, bool symmetric,
    std::optional<std::int64_t> channel_axis = std::nullopt);

// The real numbers that the integers q stand for, in q's floating dtype.
AIMETPP_API at::Tensor dequantize(
    const at::Tensor& q, const at::Tensor& min, const at::Tensor& max,
    const at::Tensor& grid, bool symmetric,
    std::optional<std::int64_t> channel_axis = std::nullopt);

// The gradients to x, min and max of fake_quantize, given the one to its
// result. min's and max's are the same from run to run, on any thread count.
AIMETPP_API std::tuple<at::Tensor, at::Tensor, at::Tensor>
fake_quantize_backward(const at::Tensor& grad, const at::Tensor& x,
                       const at::Tensor& min, const at::Tensor& max,
                       const at::Tensor& grid, bool symmetric,
                       std::optional<std::int64_t> channel_axis = std::nullopt);

// For an op that overwrites x while gradients are on. Where can_hand_over(x),
// the op may run on hand_over(x) without overwriting, and replace_value(x, y)
// then gives x the value y under all of x's names, with y's history and without
// a copy. y is not to be used any more.
[[nodiscard]] AIMETPP_API bool can_hand_over(const at::Tensor& x);
[[nodiscard]] AIMETPP_API at::Tensor hand_over(const at::Tensor& x);
AIMETPP_API void replace_value(const at::Tensor& target, const at::Tensor& y);

// x as another tensor over the same memory. Under a tracer it leaves one node,
// aimetpp::site(x, id), that names the place of x in the model.
AIMETPP_API at::Tensor site(const at::Tensor& x, std::int64_t id);

}  // namespace aimetpp::ops
