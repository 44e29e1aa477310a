// SPDX-License-Identifier: BSD-3-Clause
// Memory of large CPU tensors in blocks of its own, which go back to the system
// whole. Private to python/.
#pragma once

#include <torch/csrc/utils/pybind.h>

namespace aimetpp::python {

// While at least one of these exists, PyTorch takes CPU tensors of 64 KiB and
// more from blocks that are mapped one by one. A C library that serves kept and
// passing tensors from one heap cannot give back what lies between those that
// stay: with them it held up to twice what was kept. Freed blocks are used
// again, but never beyond what was in use at once, so that resident memory is
// that of the tensors.
//
// Nothing where blocks cannot be mapped (Windows), or where somebody else has
// given PyTorch an allocator meanwhile.
class BlockAllocation {
 public:
  BlockAllocation();
  ~BlockAllocation();
  BlockAllocation(const BlockAllocation&) = delete;
  BlockAllocation& operator=(const BlockAllocation&) = delete;
};

void bind_block_allocator(py::module_& m);

}  // namespace aimetpp::python
