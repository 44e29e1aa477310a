// SPDX-License-Identifier: BSD-3-Clause
// Quantized parameters kept from one forward to the next. Private to python/.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "python/quantizer_view.h"

namespace aimetpp::python {

// The quantized parameters of one module, by parameter name. An entry is valid
// while the bytes of the parameter, of its range and of its grid are what they
// were: version counters do not see writes through `parameter.data`, and what
// is compared costs half of quantizing again.
class WeightCache {
 public:
  // quantizer(parameter); kept and reused where gradients are off, the tensors
  // are plain CPU tensors, and no mode watches. With gradients on, what is kept
  // for the parameter is dropped: it is about to be trained.
  py::object get(const std::string& name, py::handle quantizer,
                 py::handle parameter);

  // Bytes of the tensors that are kept.
  [[nodiscard]] std::int64_t bytes() const;
  void clear() { entries_.clear(); }

 private:
  struct Entry {
    at::Tensor quantized;
    std::int64_t version = 0;  // of `quantized`: a write into it ends its use
    std::uint64_t content = 0;
    std::vector<std::uint64_t> encoding;
  };
  std::map<std::string, Entry> entries_;
};

// True where tensors are only what they are: gradients off, no tracer, no
// torch_dispatch mode and no functorch transform that would see the ops run.
[[nodiscard]] bool nobody_watches();

// A tensor with nothing but a backend and autograd behind it.
[[nodiscard]] bool is_plain(const at::Tensor& tensor);

}  // namespace aimetpp::python
