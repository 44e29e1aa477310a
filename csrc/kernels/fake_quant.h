// SPDX-License-Identifier: BSD-3-Clause
// Kernels that apply the formula of core/quant_math.h to whole tensors: raw
// pointers and sizes, no torch.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>

#include "core/isa.h"
#include "core/macros.h"
#include "core/parallel.h"
#include "core/quant_math.h"
#include "kernels/strided.h"

struct CUstream_st;  // *cudaStream_t

namespace aimetpp::kernels {

// How the elements of a tensor are stored.
enum class Storage : std::uint8_t { float32, float64, float16, bfloat16 };

// A dense tensor in the order of its memory: [outer, channels, inner], one
// range per channel. Per tensor: {1, 1, numel}.
struct ChannelLayout {
  std::int64_t outer = 1;
  std::int64_t channels = 1;
  std::int64_t inner = 1;
  [[nodiscard]] AIMETPP_HOST_DEVICE std::int64_t numel() const {
    return outer * channels * inner;
  }
};

// What x is clamped to on its way to fake_quantize: an activation function such
// as relu in the same pass. low <= high; a NaN stays a NaN.
struct Clamp {
  float low = -std::numeric_limits<float>::infinity();
  float high = std::numeric_limits<float>::infinity();
  [[nodiscard]] bool is_all() const {
    return low == -std::numeric_limits<float>::infinity() &&
           high == std::numeric_limits<float>::infinity();
  }
};

// What every call of one mode says, forward and backward.
struct QuantCall {
  QuantMode mode = QuantMode::fake_quantize;
  Storage storage = Storage::float32;        // of x, y, grad, dx
  Storage range_storage = Storage::float32;  // of min, max; float32 or float64
  bool symmetric = false;
  ChannelLayout layout;
  const void* min = nullptr;           // [channels]
  const void* max = nullptr;           // [channels]
  const std::int64_t* grid = nullptr;  // [2]: qmin, qmax; qmin < qmax
  Clamp before;                        // of cpu::transform, one channel alone
};

namespace cpu {

// Every instruction set gives the same bits.

// y: [outer, channels, inner], may be x itself.
AIMETPP_API void transform(const QuantCall& call, const void* x, void* y,
                           const ParallelFor& parallel_for,
                           Isa isa = best_isa());

// transform of one channel, and the least and the largest finite value of x in
// the same read of it: +infinity and -infinity where there is none.
AIMETPP_API void transform_observed(const QuantCall& call, const void* x,
                                    void* y, float* least, float* largest,
                                    const ParallelFor& parallel_for,
                                    Isa isa = best_isa());

// Inputs: grad, x. Outputs: dx like x; dmin, dmax [channels] in range_storage.
// The sums are taken in double over blocks that depend on the layout alone, so
// that their bits depend neither on the number of threads nor on how grad, x
// and dx lie. dx may be grad.
AIMETPP_API void gradient(const QuantCall& call, const Source& grad,
                          const Source& x, const Target& dx, void* dmin,
                          void* dmax, const ParallelFor& parallel_for,
                          Isa isa = best_isa());

// The dx that gradient gives for fake_quantize, where dmin and dmax are not
// asked for: call.mode is not read. dx may be grad.
AIMETPP_API void input_gradient(const QuantCall& call, const void* grad,
                                const void* x, void* dx,
                                const ParallelFor& parallel_for,
                                Isa isa = best_isa());

}  // namespace cpu

namespace cuda {

// As on the CPU; all pointers are device pointers, grid included, and nothing
// waits for the device or allocates memory, so that calls can be captured in a
// graph. Launch errors are left in cudaGetLastError.
AIMETPP_API void transform(const QuantCall& call, const Source& x,
                           const Target& y, CUstream_st* stream);

// least and largest are on the device too.
AIMETPP_API void transform_observed(const QuantCall& call, const Source& x,
                                    const Target& y, float* least,
                                    float* largest, CUstream_st* stream);

// fake_quantize of x by several calls, which differ in range, grid and symmetry
// alone; call.mode is not read. ys[i], for calls[i], is in the order of the
// walk. x is read once for each 16 calls.
AIMETPP_API void transform_many(std::span<const QuantCall> calls,
                                const Source& x, std::span<void* const> ys,
                                CUstream_st* stream);

// Bytes of device memory that gradient needs as workspace (aligned for double).
[[nodiscard]] AIMETPP_API std::size_t gradient_workspace_bytes(
    const ChannelLayout& layout);

AIMETPP_API void gradient(const QuantCall& call, const Source& grad,
                          const Source& x, const Target& dx, void* dmin,
                          void* dmax, void* workspace, CUstream_st* stream);

AIMETPP_API void input_gradient(const QuantCall& call, const Source& grad,
                                const Source& x, const Target& dx,
                                CUstream_st* stream);

}  // namespace cuda

}  // namespace aimetpp::kernels
