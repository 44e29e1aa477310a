// SPDX-License-Identifier: BSD-3-Clause
// Kernels that round whole tensors to the formats of core/float_grid.h: raw
// pointers and sizes, no torch.
#pragma once

#include "core/float_grid.h"
#include "core/isa.h"
#include "core/macros.h"
#include "core/parallel.h"
#include "kernels/fake_quant.h"

namespace aimetpp::kernels {

struct FloatCall {
  FloatFormat format;
  Storage storage = Storage::float32;  // of x, y, grad, dx
  ChannelLayout layout;
  const float* scale = nullptr;  // [channels], positive; null: 1
};

namespace cpu {

// y: like x, may be x itself. Every instruction set gives the same bits.
AIMETPP_API void float_quantize(const FloatCall& call, const void* x, void* y,
                                const ParallelFor& parallel_for,
                                Isa isa = best_isa());

// dx: grad where x is within the format's range, else 0; may be grad.
AIMETPP_API void float_gradient(const FloatCall& call, const void* grad,
                                const void* x, void* dx,
                                const ParallelFor& parallel_for,
                                Isa isa = best_isa());

}  // namespace cpu

namespace cuda {

// As on the CPU, with device pointers; see kernels/fake_quant.h.
AIMETPP_API void float_quantize(const FloatCall& call, const Source& x,
                                const Target& y, CUstream_st* stream);

AIMETPP_API void float_gradient(const FloatCall& call, const Source& grad,
                                const Source& x, const Target& dx,
                                CUstream_st* stream);

}  // namespace cuda

}  // namespace aimetpp::kernels
