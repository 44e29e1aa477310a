// SPDX-License-Identifier: BSD-3-Clause
#include "python/value_tree.h"

#include <torch/csrc/Device.h>
#include <torch/csrc/Dtype.h>
#include <torch/csrc/Layout.h>
#include <torch/csrc/MemoryFormat.h>
#include <torch/csrc/Size.h>
#include <torch/csrc/autograd/python_variable.h>

#include <bit>
#include <cstdint>
#include <utility>

#include "python/weight_cache.h"

namespace aimetpp::python {
namespace {

// Stands for a tensor; no op takes it as an argument.
py::handle mark() { return Py_NotImplemented; }

bool is_plain_value(PyObject* object) {
  return object == Py_None || object == Py_Ellipsis || PyBool_Check(object) ||
         PyLong_CheckExact(object) || PyFloat_CheckExact(object) ||
         PyUnicode_CheckExact(object) || PyBytes_CheckExact(object) ||
         THPDtype_Check(object) || THPDevice_Check(object) ||
         THPLayout_Check(object) || THPMemoryFormat_Check(object) ||
         THPSize_Check(object);
}

bool is_memory_only(PyObject* object) {
  if (!THPVariable_CheckExact(object) &&
      reinterpret_cast<PyObject*>(Py_TYPE(object)) != ParameterClass) {
    return false;
  }
  const at::Tensor& tensor = THPVariable_Unpack(object);
  return is_plain(tensor) && tensor.has_storage() && !tensor.is_inference();
}

// False where the value cannot be taken apart.
bool take_apart(py::handle value, ValueTree* tree, py::object* plain);

template <typename Sequence>
bool take_apart_sequence(py::handle value, ValueTree* tree, py::object* plain) {
  const auto items = py::reinterpret_borrow<Sequence>(value);
  Sequence copy(items.size());
  for (std::size_t i = 0; i < items.size(); ++i) {
    py::object item;
    if (!take_apart(items[i], tree, &item)) return false;
    copy[i] = std::move(item);
  }
  *plain = std::move(copy);
  return true;
}

bool take_apart(py::handle value, ValueTree* tree, py::object* plain) {
  PyObject* object = value.ptr();
  if (THPVariable_Check(object)) {
    if (!is_memory_only(object)) return false;
    tree->tensors.push_back(THPVariable_Unpack(object));
    *plain = py::reinterpret_borrow<py::object>(mark());
    return true;
  }
  if (is_plain_value(object)) {
    *plain = py::reinterpret_borrow<py::object>(value);
    return true;
  }
  if (PyTuple_CheckExact(object)) {
    return take_apart_sequence<py::tuple>(value, tree, plain);
  }
  if (PyList_CheckExact(object)) {
    return take_apart_sequence<py::list>(value, tree, plain);
  }
  if (!PyDict_CheckExact(object)) return false;
  py::dict copy;
  for (const auto& [key, entry] : py::reinterpret_borrow<py::dict>(value)) {
    py::object item;
    if (!is_plain_value(key.ptr()) || !take_apart(entry, tree, &item)) {
      return false;
    }
    copy[key] = std::move(item);
  }
  *plain = std::move(copy);
  return true;
}

using Next = std::vector<at::Tensor>::const_iterator;

py::object put_together(py::handle plain, Next* next);

template <typename Sequence>
py::object put_together_sequence(py::handle plain, Next* next) {
  const auto items = py::reinterpret_borrow<Sequence>(plain);
  Sequence copy(items.size());
  for (std::size_t i = 0; i < items.size(); ++i) {
    copy[i] = put_together(items[i], next);
  }
  return copy;
}

py::object put_together(py::handle plain, Next* next) {
  if (plain.is(mark())) {
    return py::reinterpret_steal<py::object>(THPVariable_Wrap(*(*next)++));
  }
  if (PyTuple_CheckExact(plain.ptr())) {
    return put_together_sequence<py::tuple>(plain, next);
  }
  if (PyList_CheckExact(plain.ptr())) {
    return put_together_sequence<py::list>(plain, next);
  }
  if (!PyDict_CheckExact(plain.ptr())) {
    return py::reinterpret_borrow<py::object>(plain);
  }
  py::dict copy;
  for (const auto& [key, entry] : py::reinterpret_borrow<py::dict>(plain)) {
    copy[key] = put_together(entry, next);
  }
  return copy;
}

bool same_items(PyObject* a, PyObject* b) {
  const Py_ssize_t size = PySequence_Fast_GET_SIZE(a);
  if (PySequence_Fast_GET_SIZE(b) != size) return false;
  for (Py_ssize_t i = 0; i < size; ++i) {
    if (!same_plain(PySequence_Fast_GET_ITEM(a, i),
                    PySequence_Fast_GET_ITEM(b, i))) {
      return false;
    }
  }
  return true;
}

bool same_dicts(PyObject* a, PyObject* b) {
  if (PyDict_Size(a) != PyDict_Size(b)) return false;
  Py_ssize_t in_a = 0;
  Py_ssize_t in_b = 0;
  PyObject *key_a = nullptr, *key_b = nullptr, *entry_a = nullptr,
           *entry_b = nullptr;
  while (PyDict_Next(a, &in_a, &key_a, &entry_a) != 0 &&
         PyDict_Next(b, &in_b, &key_b, &entry_b) != 0) {
    if (!same_plain(key_a, key_b) || !same_plain(entry_a, entry_b)) {
      return false;
    }
  }
  return true;
}

void collect(py::handle value, std::vector<at::Tensor>* tensors) {
  PyObject* object = value.ptr();
  if (THPVariable_Check(object)) {
    tensors->push_back(THPVariable_Unpack(object));
  } else if (PyTuple_Check(object) || PyList_Check(object)) {
    const Py_ssize_t size = PySequence_Fast_GET_SIZE(object);
    for (Py_ssize_t i = 0; i < size; ++i) {
      collect(PySequence_Fast_GET_ITEM(object, i), tensors);
    }
  } else if (PyDict_Check(object)) {
    Py_ssize_t position = 0;
    PyObject* entry = nullptr;
    while (PyDict_Next(object, &position, nullptr, &entry) != 0) {
      collect(entry, tensors);
    }
  }
}

}  // namespace

std::optional<ValueTree> ValueTree::of(py::handle value) {
  ValueTree tree;
  if (!take_apart(value, &tree, &tree.plain)) return std::nullopt;
  return tree;
}

py::object ValueTree::value() const {
  Next next = tensors.begin();
  return put_together(plain, &next);
}

bool same_plain(py::handle a, py::handle b) {
  if (a.is(b)) return true;
  if (Py_TYPE(a.ptr()) != Py_TYPE(b.ptr())) return false;
  if (PyFloat_CheckExact(a.ptr())) {
    return std::bit_cast<std::uint64_t>(PyFloat_AS_DOUBLE(a.ptr())) ==
           std::bit_cast<std::uint64_t>(PyFloat_AS_DOUBLE(b.ptr()));
  }
  if (PyTuple_CheckExact(a.ptr()) || PyList_CheckExact(a.ptr())) {
    return same_items(a.ptr(), b.ptr());
  }
  if (PyDict_CheckExact(a.ptr())) return same_dicts(a.ptr(), b.ptr());
  const int equal = PyObject_RichCompareBool(a.ptr(), b.ptr(), Py_EQ);
  if (equal < 0) throw py::error_already_set();
  return equal == 1;
}

std::vector<at::Tensor> tensors_in(py::handle value) {
  std::vector<at::Tensor> tensors;
  collect(value, &tensors);
  return tensors;
}

}  // namespace aimetpp::python
