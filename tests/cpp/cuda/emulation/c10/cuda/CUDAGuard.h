// SPDX-License-Identifier: BSD-3-Clause
// Stands in for PyTorch's header of this name: see cuda_runtime.h.
#pragma once

#include <c10/core/Device.h>

namespace c10::cuda {

// There is one device, the host.
class CUDAGuard {
 public:
  explicit CUDAGuard(Device /*device*/) {}
  CUDAGuard(const CUDAGuard&) = delete;
  CUDAGuard& operator=(const CUDAGuard&) = delete;
  ~CUDAGuard() {}
};

}  // namespace c10::cuda
