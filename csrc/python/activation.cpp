// SPDX-License-Identifier: BSD-3-Clause
#include "python/activation.h"

#include <ATen/PythonTorchFunctionTLS.h>
#include <c10/core/InferenceMode.h>

#include <limits>

#include "python/weight_cache.h"

namespace aimetpp::python {
namespace {

struct Interval {
  float low = 0;
  float high = std::numeric_limits<float>::infinity();
};

// The clamp that a leaf's forward is, as nn/wrap.py notes it in the class.
std::optional<Interval> clamp_of(const Attributes& leaf,
                                 py::handle leaf_class) {
  static const Name clamps("_aimetpp_clamps"), relu("relu"), min_val("min_val"),
      max_val("max_val");
  const auto kind = py::reinterpret_steal<py::object>(
      PyObject_GetAttr(leaf_class.ptr(), clamps.get()));
  if (!kind) throw py::error_already_set();
  if (kind.is_none()) return std::nullopt;
  if (kind.ptr() == relu.get()) return Interval{};
  if (!leaf.has(min_val) || !leaf.has(max_val)) return std::nullopt;
  PyObject* const low = leaf.at(min_val).ptr();
  PyObject* const high = leaf.at(max_val).ptr();
  if (!PyFloat_CheckExact(low) || !PyFloat_CheckExact(high)) {
    return std::nullopt;
  }
  const Interval interval{static_cast<float>(PyFloat_AS_DOUBLE(low)),
                          static_cast<float>(PyFloat_AS_DOUBLE(high))};
  if (!(interval.low <= interval.high)) return std::nullopt;
  return interval;
}

// The clamp's ends must be numbers of x's dtype.
bool can_be_clamped(const at::Tensor& x) {
  return x.is_cpu() && x.scalar_type() == at::kFloat && x.dim() > 0 &&
         is_plain(x) && !x.requires_grad() && x.is_non_overlapping_and_dense();
}

bool nobody_looks() {
  return nobody_watches() && !at::impl::torch_function_mode_enabled();
}

}  // namespace

std::optional<py::object> quantized_activation(const Attributes& leaf,
                                               py::handle leaf_class,
                                               py::handle x,
                                               py::handle quantizer,
                                               bool overwrites) {
  static const Name inplace("inplace");
  if (!THPVariable_CheckExact(x.ptr()) || !nobody_looks()) return std::nullopt;
  const at::Tensor& tensor = THPVariable_Unpack(x.ptr());
  if (!can_be_clamped(tensor)) return std::nullopt;
  const auto interval = clamp_of(leaf, leaf_class);
  if (!interval || !leaf.has(inplace) ||
      (leaf.at(inplace).ptr() == Py_True) != overwrites ||
      (overwrites && tensor.is_inference() &&
       !c10::InferenceMode::is_enabled())) {
    return std::nullopt;
  }
  const auto view = view_of(quantizer);
  if (!view || view->channel_axis) return std::nullopt;
  const auto [low, high] = *interval;
  if (overwrites) {
    view->clamped_fake_quantize_into(tensor, tensor, low, high);
    if (!tensor.is_inference()) tensor.unsafeGetTensorImpl()->bump_version();
    return py::reinterpret_borrow<py::object>(x);
  }
  const at::Tensor y = ops::empty_result(tensor);
  view->clamped_fake_quantize_into(y, tensor, low, high);
  return py::reinterpret_steal<py::object>(THPVariable_Wrap(y));
}

}  // namespace aimetpp::python
