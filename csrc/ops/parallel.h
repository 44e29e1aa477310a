// SPDX-License-Identifier: BSD-3-Clause
// PyTorch's threads, as the torch-free loops ask for them.
#pragma once

#include <ATen/Parallel.h>

#include "core/parallel.h"

namespace aimetpp::ops {

inline void at_parallel_for(std::int64_t count, std::int64_t grain,
                            const RangeBody& body) {
  at::parallel_for(0, count, grain, body);
}

}  // namespace aimetpp::ops
