// SPDX-License-Identifier: BSD-3-Clause
// Numbers that change when what a forward depends on does. Private to python/.
#pragma once

#include <c10/core/StorageImpl.h>
#include <torch/csrc/utils/pybind.h>

#include <cstdint>
#include <vector>

namespace aimetpp::python {

// Of the values fed to it, in their order: changes with any of them, but for a
// chance of 2^-64.
class Stamp {
 public:
  void add(std::uint64_t value) {
    // The finalizer of SplitMix64 (Steele, Lea, Flood 2014).
    value += sum_ + 0x9E3779B97F4A7C15U;
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9U;
    value = (value ^ (value >> 27)) * 0x94D049BB133111EBU;
    sum_ = value ^ (value >> 31);
  }
  void add(const void* pointer) {
    add(static_cast<std::uint64_t>(reinterpret_cast<std::uintptr_t>(pointer)));
  }
  // None, numbers, strings and bytes, by value: 1 is not 1.0, nor -1 -2. False
  // where it is something else; then nothing was added.
  bool add_plain(PyObject* value);
  [[nodiscard]] std::uint64_t sum() const { return sum_; }

 private:
  std::uint64_t sum_ = 0;
};

// Of what a call of a module may read besides its arguments and quantizers:
// bytes of parameters and buffers, attributes and what is in them, and what the
// code of a user's class reaches by closures and global names. Of other objects
// their own plain attributes count, and else only which they are.
//
// `left_out`: names of the children that hold quantizers.
struct ModuleState {
  std::uint64_t stamp = 0;
  std::vector<const c10::StorageImpl*> memories;  // of the tensors on the way
};
[[nodiscard]] ModuleState module_state(py::handle module,
                                       const py::frozenset& left_out);

// Of what the code of a model's classes reaches by closures and global names,
// as above.
[[nodiscard]] std::uint64_t code_state(const std::vector<py::handle>& modules,
                                       const py::frozenset& left_out);

// Of PyTorch's settings, and of the thread's, under which equal ops may round
// differently or other kernels run: threads, autocast, oneDNN, precisions, ...
[[nodiscard]] std::uint64_t numeric_settings();

}  // namespace aimetpp::python
