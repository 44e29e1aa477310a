// SPDX-License-Identifier: BSD-3-Clause
// Quantized parameters kept from one forward to the next. Private to python/.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "python/quantizer_view.h"

namespace aimetpp::python {

// Which quantized parameters a module keeps: those that cost time to make again
// (kAuto), all, or none.
enum class Keep { kAuto, kAll, kNone };

// The quantized parameters of one module, by parameter name. An entry is valid
// while the bytes of the parameter, of its range and of its grid are what they
// were: version counters do not see writes through `parameter.data`, and what
// is compared costs half of quantizing again.
//
// Kept parameters take as much memory as the parameters themselves, so by
// default only those are kept that the module's call uses few times: elsewhere
// the call takes so long that quantizing again is not noticed.
class WeightCache {
 public:
  // quantizer(parameter); kept and reused where gradients are off, the tensors
  // are plain CPU tensors, and no mode watches. With gradients on, what is kept
  // for the parameter is dropped: it is about to be trained.
  py::object get(const std::string& name, py::handle quantizer,
                 py::handle parameter);

  // A call of the module returned this: its size tells, for the next call, how
  // often each element of a parameter is used.
  void note_result(py::handle result);

  // "auto", "all" or "none".
  [[nodiscard]] std::string keep() const;
  void set_keep(const std::string& keep);

  // make(); kept and reused under the same conditions, while the bytes of the
  // tensors that it depends on are what they were.
  py::object get_made(const std::string& name,
                      const std::vector<at::Tensor>& sources,
                      const py::function& make);

  // What get_made has kept for [parameter, and min, max and grid of each of
  // `quantizers`], found without a call into Python; nullopt where it is to be
  // made, or only Python knows these quantizers' ranges.
  [[nodiscard]] std::optional<at::Tensor> find_made(
      const std::string& name, const at::Tensor& parameter,
      const std::vector<py::handle>& quantizers) const;

  // Bytes of the tensors that are kept.
  [[nodiscard]] std::int64_t bytes() const;
  void clear() { entries_.clear(); }

 private:
  struct Entry {
    at::Tensor quantized;
    // Of `quantized`: a write into it, or to where it lies, ends its use.
    std::int64_t version = 0;
    const void* data = nullptr;
    std::uint64_t content = 0;
    std::vector<std::uint64_t> encoding;

    void note_untouched() {
      version = static_cast<std::int64_t>(quantized._version());
      data = quantized.const_data_ptr();
    }
    [[nodiscard]] bool is_untouched() const {
      return quantized.defined() && quantized._version() == version &&
             quantized.const_data_ptr() == data;
    }
  };
  // Whether what is made of `parameter` is to be kept.
  [[nodiscard]] bool keeps(const at::Tensor& parameter) const;

  std::map<std::string, Entry> entries_;
  Keep keep_ = Keep::kAuto;
  std::optional<std::int64_t> result_size_;  // of the last call, in elements
};

// Frees the memory in which parameters that are not kept are quantized, one
// after another, during a forward.
void release_scratch();

void bind_weight_cache(py::module_& m);

// True where tensors are only what they are: gradients off, no tracer, no
// torch_dispatch mode and no functorch transform that would see the ops run.
[[nodiscard]] bool nobody_watches();

// A tensor with nothing but a backend and autograd behind it, and no tangent.
[[nodiscard]] bool is_plain(const at::Tensor& tensor);

}  // namespace aimetpp::python
