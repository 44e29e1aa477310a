// SPDX-License-Identifier: BSD-3-Clause
// The gradient to x where the range is not trained.
#include "kernels/cuda/call.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/storage.cuh"
#include "kernels/fake_quant.h"

namespace aimetpp::kernels::cuda {
namespace {

// What passes of one element's gradient.
template <typename Compute, typename Stored>
__device__ Stored passed(const QuantCall& call, Stored grad, Stored x,
                         std::int64_t channel) {
  const AffineGrid<Compute> grid = channel_grid<Compute>(call, channel);
  return store<Stored>(aimetpp::gradient<QuantMode::fake_quantize>(
                           load<Compute>(grad), load<Compute>(x), grid)
                           .x);
}

template <typename Compute, typename Stored>
__device__ void input_gradient_packs(const QuantCall& call, const Stored* grad,
                                     const Stored* x, Stored* dx,
                                     std::int64_t packs) {
  constexpr int kWidth = kPackWidth<Stored>;
  using P = Pack<Stored, kWidth>;
  const auto* grads = reinterpret_cast<const P*>(grad);
  const auto* sources = reinterpret_cast<const P*>(x);
  auto* targets = reinterpret_cast<P*>(dx);
  const std::int64_t step = std::int64_t{gridDim.x} * blockDim.x;
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
       i < packs; i += step) {
    P pack = grads[i];
    const P values = sources[i];
    for (int k = 0; k < kWidth; ++k) {
      pack.values[k] = passed<Compute>(call, pack.values[k], values.values[k],
                                       channel_of(call.layout, i * kWidth + k));
    }
    targets[i] = pack;
  }
}

template <typename Stored>
__global__ void __launch_bounds__(kThreads)
    input_gradient_packs_kernel(QuantCall call, const Stored* grad,
                                const Stored* x, Stored* dx,
                                std::int64_t packs) {
  if (computes_in_double<Stored>(call)) {
    input_gradient_packs<double>(call, grad, x, dx, packs);
  } else {
    input_gradient_packs<float>(call, grad, x, dx, packs);
  }
}

template <typename Stored>
__global__ void __launch_bounds__(kThreads)
    input_gradient_kernel(QuantCall call, Elements<const Stored> grad,
                          Elements<const Stored> x, Elements<Stored> dx) {
  const bool in_double = computes_in_double<Stored>(call);
  const std::int64_t step = std::int64_t{gridDim.x} * blockDim.x;
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
       i < call.layout.numel(); i += step) {
    const std::int64_t channel = channel_of(call.layout, i);
    dx[i] = in_double ? passed<double>(call, Stored{grad[i]}, x[i], channel)
                      : passed<float>(call, Stored{grad[i]}, x[i], channel);
  }
}

template <typename Stored>
void launch_input_gradient(const QuantCall& call, const Source& grad,
                           const Source& x, const Target& dx,
                           cudaStream_t stream) {
  constexpr int kWidth = kPackWidth<Stored>;
  const std::int64_t numel = call.layout.numel();
  if (numel % kWidth == 0 && is_in_packs(grad) && is_in_packs(x) &&
      is_in_packs(dx)) {
    const std::int64_t packs = numel / kWidth;
    launch(input_gradient_packs_kernel<Stored>, grid_stride_blocks(packs),
           stream, call, static_cast<const Stored*>(grad.data),
           static_cast<const Stored*>(x.data), static_cast<Stored*>(dx.data),
           packs);
  } else {
    launch(input_gradient_kernel<Stored>, grid_stride_blocks(numel), stream,
           call, elements_of<Stored>(grad), elements_of<Stored>(x),
           elements_of<Stored>(dx));
  }
}

}  // namespace

void input_gradient(const QuantCall& call, const Source& grad, const Source& x,
                    const Target& dx, CUstream_st* stream) {
  if (call.layout.numel() == 0) return;
  with_stored(call.storage, [&](auto stored) {
    launch_input_gradient<decltype(stored)>(call, grad, x, dx, stream);
  });
}

}  // namespace aimetpp::kernels::cuda
