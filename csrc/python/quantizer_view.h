// SPDX-License-Identifier: BSD-3-Clause
// A Python quantizer as the arguments of its op, read without calling it.
// Private to python/.
#pragma once

#include <ATen/record_function.h>
#include <torch/csrc/autograd/python_variable.h>
#include <torch/csrc/utils/pybind.h>

#include <cstdint>
#include <optional>
#include <string>

#include "ops/fake_quant.h"

namespace aimetpp::python {

// What Python registers once, at import. Never released: the interpreter may be
// gone when static objects are destroyed.
struct PythonSide {
  py::handle quantizer_class;  // QuantizeDequantize: its forward is known here
  py::handle global_hooks;     // tuple of torch's dicts of hooks on all modules
  py::handle run_quantized;    // functional_call's slow counterpart
  py::handle leaf_call;        // leaf_call's slow counterpart
  py::handle quantize_results;  // (results, output quantizers, overwritten)
};
inline PythonSide python_side;

// An interned attribute name.
class Name {
 public:
  explicit Name(const char* text) : text_(PyUnicode_InternFromString(text)) {}
  [[nodiscard]] PyObject* get() const { return text_; }

 private:
  PyObject* text_;  // never released, as PythonSide
};

// The instance attributes of an object, without the cost of a full lookup.
class Attributes {
 public:
  explicit Attributes(py::handle object)
      : dict_(py::reinterpret_steal<py::object>(
            PyObject_GenericGetDict(object.ptr(), nullptr))) {
    if (!dict_) throw py::error_already_set();
  }

  [[nodiscard]] py::handle at(const Name& name) const {
    return item(dict_, name);
  }

  [[nodiscard]] bool has(const Name& name) const {
    return PyDict_GetItemWithError(dict_.ptr(), name.get()) != nullptr;
  }

  // item(dict, name), an error where there is none.
  [[nodiscard]] static py::handle item(py::handle dict, const Name& name) {
    PyObject* value = PyDict_GetItemWithError(dict.ptr(), name.get());
    if (value == nullptr) {
      if (PyErr_Occurred() == nullptr) {
        PyErr_SetObject(PyExc_AttributeError, name.get());
      }
      throw py::error_already_set();
    }
    return value;
  }

  [[nodiscard]] const py::object& dict() const { return dict_; }

  void set(const Name& name, py::handle value) const {
    if (PyDict_SetItem(dict_.ptr(), name.get(), value.ptr()) != 0) {
      throw py::error_already_set();
    }
  }

 private:
  py::object dict_;
};

// While torch.profiler runs, what happens until the end of the scope is an
// event of this name; profiling.py looks for the prefixes.
inline constexpr const char* kCallEvent = "aimetpp call ";
inline constexpr const char* kSiteEvent = "aimetpp site ";

class Event {
 public:
  Event(const char* prefix, py::handle name)
      : guard_(at::RecordScope::USER_SCOPE) {
    if (guard_.isActive()) {
      guard_.before(prefix + py::str(name).cast<std::string>());
    }
  }

 private:
  at::RecordFunction guard_;
};

// The arguments of fake_quantize after its tensor, borrowed from the quantizer.
struct QuantizerView {
  const at::Tensor& min;
  const at::Tensor& max;
  const at::Tensor& grid;
  bool symmetric;
  std::optional<std::int64_t> channel_axis;
  py::handle label;

  [[nodiscard]] at::Tensor fake_quantize(const at::Tensor& x) const {
    const Event event(kSiteEvent, label);
    const py::gil_scoped_release release;
    return ops::fake_quantize(x, min, max, grid, symmetric, channel_axis);
  }
  void fake_quantize_(const at::Tensor& x) const {
    const Event event(kSiteEvent, label);
    const py::gil_scoped_release release;
    ops::fake_quantize_(x, min, max, grid, symmetric, channel_axis);
  }
  void fake_quantize_into(const at::Tensor& y, const at::Tensor& x) const {
    const Event event(kSiteEvent, label);
    const py::gil_scoped_release release;
    ops::fake_quantize_into(y, x, min, max, grid, symmetric, channel_axis);
  }
  void clamped_fake_quantize_into(const at::Tensor& y, const at::Tensor& x,
                                  float low, float high) const {
    const Event event(kSiteEvent, label);
    const py::gil_scoped_release release;
    ops::clamped_fake_quantize_into(y, x, low, high, min, max, grid, symmetric);
  }
};

inline bool has_hooks(const Attributes& module) {
  static const Name names[] = {
      Name("_forward_hooks"), Name("_forward_pre_hooks"),
      Name("_backward_hooks"), Name("_backward_pre_hooks")};
  for (const Name& name : names) {
    if (PyObject_Size(module.at(name).ptr()) > 0) return true;
  }
  for (const py::handle hooks :
       py::reinterpret_borrow<py::tuple>(python_side.global_hooks)) {
    if (PyObject_Size(hooks.ptr()) > 0) return true;
  }
  return false;
}

// nullopt for what only Python knows how to run: another class of quantizer,
// one that observes, has no range yet or more to do than its op, leaves masked
// values out, or has hooks.
inline std::optional<QuantizerView> view_of(py::handle quantizer) {
  if (py::type::handle_of(quantizer).ptr() !=
      python_side.quantizer_class.ptr()) {
    return std::nullopt;
  }
  static const Name observing("_observing"), initialized("_initialized"),
      is_its_op("_is_its_op"), is_signed("_signed"),
      channel_axis("channel_axis"), parameters("_parameters"),
      buffers("_buffers"), min("min"), max("max"), grid("grid"),
      masked_below("masked_below"), label("label");
  const Attributes attributes(quantizer);
  if (attributes.at(observing).ptr() != Py_False ||
      attributes.at(initialized).ptr() != Py_True ||
      attributes.at(is_its_op).ptr() != Py_True ||
      attributes.at(masked_below).ptr() != Py_None || has_hooks(attributes)) {
    return std::nullopt;
  }
  const py::handle params = attributes.at(parameters);
  const py::handle min_object = Attributes::item(params, min);
  const py::handle max_object = Attributes::item(params, max);
  const py::handle grid_object = Attributes::item(attributes.at(buffers), grid);
  if (!THPVariable_Check(min_object.ptr()) ||
      !THPVariable_Check(max_object.ptr()) ||
      !THPVariable_Check(grid_object.ptr())) {
    return std::nullopt;
  }
  return QuantizerView{
      THPVariable_Unpack(min_object.ptr()),
      THPVariable_Unpack(max_object.ptr()),
      THPVariable_Unpack(grid_object.ptr()),
      attributes.at(is_signed).ptr() == Py_True,
      attributes.at(channel_axis).cast<std::optional<std::int64_t>>(),
      attributes.at(label)};
}

// quantizer(x).
inline py::object quantized(py::handle quantizer, py::handle x) {
  if (THPVariable_CheckExact(x.ptr())) {
    if (const auto view = view_of(quantizer)) {
      return py::reinterpret_steal<py::object>(
          THPVariable_Wrap(view->fake_quantize(THPVariable_Unpack(x.ptr()))));
    }
  }
  return quantizer(x);
}

}  // namespace aimetpp::python
