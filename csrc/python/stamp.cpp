// SPDX-License-Identifier: BSD-3-Clause
#include "python/stamp.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/autocast_mode.h>
#include <c10/core/DefaultDtype.h>
#include <torch/csrc/autograd/python_variable.h>

#include <bit>
#include <string_view>
#include <unordered_set>
#include <utility>

#include "python/quantizer_view.h"
#include "python/tensor_state.h"
#include "python/weight_cache.h"

#if defined(__SSE__)
#include <xmmintrin.h>
#endif

namespace aimetpp::python {
namespace {

bool is_in(PyObject* name, std::string_view package) {
  if (name == nullptr || !PyUnicode_Check(name)) return false;
  Py_ssize_t size = 0;
  const char* text = PyUnicode_AsUTF8AndSize(name, &size);
  const std::string_view module(text, static_cast<std::size_t>(size));
  return module == package ||
         (module.starts_with(package) && module[package.size()] == '.');
}

// Code that reads nothing but what it is given and what PyTorch's settings say.
bool is_known_code(PyObject* globals) {
  static const Name name("__name__");
  PyObject* module = PyDict_GetItemWithError(globals, name.get());
  return is_in(module, "torch") || is_in(module, "aimetpp");
}

bool has_dict(PyTypeObject* type) {
#ifdef Py_TPFLAGS_MANAGED_DICT
  if (PyType_HasFeature(type, Py_TPFLAGS_MANAGED_DICT)) return true;
#endif
  return type->tp_dictoffset != 0;
}

bool is_module(PyObject* value) {
  static PyObject* const cls = py::module_::import("torch.nn")
                                   .attr("Module")
                                   .cast<py::object>()
                                   .release()
                                   .ptr();
  return PyObject_IsInstance(value, cls) == 1;
}

py::object attribute(PyObject* object, const char* name) {
  return py::reinterpret_borrow<py::object>(object).attr(name);
}

// One walk over what can be reached from a module.
class StateWalk {
 public:
  explicit StateWalk(const py::frozenset& left_out) : left_out_(left_out) {}

  void add_module(PyObject* module) {
    if (!is_new(module)) return;
    PyTypeObject* type = Py_TYPE(module);
    stamp_.add(type);
    add_attributes(Attributes(module).dict().ptr());
    add_forward(type);
  }
  void add_forward(PyTypeObject* type) {
    static const Name forward("_aimetpp_original_forward");
    PyObject* function = _PyType_Lookup(type, forward.get());
    if (function != nullptr && PyFunction_Check(function)) {
      add_function(function, type);
    }
  }
  [[nodiscard]] ModuleState result() && {
    return {stamp_.sum(), std::move(memories_)};
  }

 private:
  bool is_new(PyObject* object) { return seen_.insert(object).second; }

  void add(PyObject* value) {
    if (stamp_.add_plain(value)) return;
    if (THPVariable_Check(value)) {
      if (is_new(value)) add_tensor(THPVariable_Unpack(value));
    } else if (PyTuple_Check(value)) {
      add_items(value);
    } else if (PyList_Check(value)) {
      if (is_new(value)) add_items(value);
    } else if (PyDict_Check(value)) {
      if (PyDict_GET_SIZE(value) == 0) {  // as a module's hooks mostly are
        stamp_.add(std::uint64_t{0});
      } else if (is_new(value)) {
        add_dict(value);
      }
    } else if (PyAnySet_Check(value)) {
      if (is_new(value)) add_set(value);
    } else {
      add_other(value);
    }
  }

  void add_tensor(const at::Tensor& tensor) {
    memories_.push_back(memory_of(tensor));
    stamp_.add(static_cast<std::uint64_t>(tensor.scalar_type()));
    if (is_plain(tensor) && tensor.is_cpu()) {
      for (const std::int64_t size : tensor.sizes()) {
        stamp_.add(static_cast<std::uint64_t>(size));
      }
      for (const std::int64_t stride : tensor.strides()) {
        stamp_.add(static_cast<std::uint64_t>(stride));
      }
      stamp_.add(content_of(tensor).value_or(0));
      return;
    }
    stamp_.add(tensor.unsafeGetTensorImpl());
    if (tensor.has_storage()) stamp_.add(tensor.storage().data());
    if (!tensor.is_inference()) {
      stamp_.add(static_cast<std::uint64_t>(tensor._version()));
    }
  }

  void add_items(PyObject* sequence) {
    const Py_ssize_t size = PySequence_Fast_GET_SIZE(sequence);
    stamp_.add(static_cast<std::uint64_t>(size));
    for (Py_ssize_t i = 0; i < size; ++i) {
      add(PySequence_Fast_GET_ITEM(sequence, i));
    }
  }

  void add_dict(PyObject* dict) {
    Py_ssize_t position = 0;
    PyObject *key = nullptr, *value = nullptr;
    stamp_.add(static_cast<std::uint64_t>(PyDict_Size(dict)));
    while (PyDict_Next(dict, &position, &key, &value) != 0) {
      add(key);
      add(value);
    }
  }

  void add_set(PyObject* set) {
    stamp_.add(static_cast<std::uint64_t>(PySet_Size(set)));
    for (const py::handle item : py::reinterpret_borrow<py::object>(set)) {
      add(item.ptr());
    }
  }

  // A module's own dict, without the library's entries, the quantizers, and
  // weak references in which recurrent layers note the weights they had last.
  void add_attributes(PyObject* dict) {
    static const Name record("_aimetpp"), running("_aimetpp_running"),
        children("_modules"), last_weights("_flat_weight_refs");
    Py_ssize_t position = 0;
    PyObject *key = nullptr, *value = nullptr;
    while (PyDict_Next(dict, &position, &key, &value) != 0) {
      if (key == record.get() || key == running.get() ||
          key == last_weights.get()) {
        continue;
      }
      stamp_.add_plain(key);
      if (key == children.get()) {
        add_children(value);
      } else {
        add(value);
      }
    }
  }

  void add_children(PyObject* dict) {
    Py_ssize_t position = 0;
    PyObject *key = nullptr, *child = nullptr;
    while (PyDict_Next(dict, &position, &key, &child) != 0) {
      if (left_out_.contains(py::handle(key))) continue;
      stamp_.add_plain(key);
      add(child);
    }
  }

  void add_other(PyObject* value) {
    stamp_.add(value);
    if (PyFunction_Check(value)) {
      add_function(value, nullptr);
    } else if (PyMethod_Check(value)) {
      add(PyMethod_GET_SELF(value));
      add(PyMethod_GET_FUNCTION(value));
    } else if (PyType_Check(value)) {
      add_class(reinterpret_cast<PyTypeObject*>(value));
    } else if (PyObject_CheckBuffer(value) != 0) {
      add_buffer(value);
    } else if (has_dict(Py_TYPE(value)) && !PyModule_Check(value)) {
      if (is_module(value)) {
        add_module(value);
      } else if (depth_ == 0 && is_new(value)) {
        ++depth_;
        add_dict(Attributes(value).dict().ptr());
        --depth_;
      }
    }
  }

  // Arrays.
  void add_buffer(PyObject* value) {
    Py_buffer view;
    if (PyObject_GetBuffer(value, &view, PyBUF_C_CONTIGUOUS) != 0) {
      PyErr_Clear();
      return;
    }
    stamp_.add(hash_of_bytes(view.buf, view.len));
    PyBuffer_Release(&view);
  }

  // Values that a user's class holds.
  void add_class(PyTypeObject* type) {
    static const Name name("__module__");
    PyObject* object = reinterpret_cast<PyObject*>(type);
    if (!PyType_HasFeature(type, Py_TPFLAGS_HEAPTYPE) || !is_new(object) ||
        is_in(PyDict_GetItemWithError(type->tp_dict, name.get()), "torch")) {
      return;
    }
    add_values(type->tp_dict);
  }

  void add_values(PyObject* dict) {
    Py_ssize_t position = 0;
    PyObject* value = nullptr;
    while (PyDict_Next(dict, &position, nullptr, &value) != 0) add_value(value);
  }

  // A plain value, a container or a tensor; nothing else.
  void add_value(PyObject* value) {
    if (stamp_.add_plain(value)) return;
    if (THPVariable_Check(value) || PyTuple_Check(value) ||
        PyList_Check(value) || PyDict_Check(value) || PyAnySet_Check(value)) {
      add(value);
    }
  }

  // `type`: whose method it is; it may call others of them.
  void add_function(PyObject* function, PyTypeObject* type) {
    PyObject* globals = PyFunction_GET_GLOBALS(function);
    if (is_known_code(globals) || !is_new(function)) return;
    PyObject* closure = PyFunction_GET_CLOSURE(function);
    for (Py_ssize_t i = 0; closure != nullptr && i < PyTuple_GET_SIZE(closure);
         ++i) {
      PyObject* value = PyCell_GET(PyTuple_GET_ITEM(closure, i));
      if (value != nullptr) add(value);
    }
    for (PyObject* defaults : {PyFunction_GET_DEFAULTS(function),
                               PyFunction_GET_KW_DEFAULTS(function)}) {
      if (defaults != nullptr) add(defaults);
    }
    add_code(PyFunction_GET_CODE(function), globals, type);
  }

  void add_code(PyObject* code, PyObject* globals, PyTypeObject* type) {
    const py::object names = attribute(code, "co_names");
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(names.ptr()); ++i) {
      PyObject* name = PyTuple_GET_ITEM(names.ptr(), i);
      PyObject* value = PyDict_GetItemWithError(globals, name);
      if (value != nullptr && PyModule_Check(value)) {
        add_members(PyModule_GetDict(value), names.ptr());
      } else if (value != nullptr) {
        add(value);
      }
      PyObject* own = type == nullptr ? nullptr : _PyType_Lookup(type, name);
      if (own != nullptr && PyFunction_Check(own)) {
        add_function(own, type);
      } else if (own != nullptr) {
        add_value(own);
      }
    }
    const py::object constants = attribute(code, "co_consts");
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(constants.ptr()); ++i) {
      PyObject* constant = PyTuple_GET_ITEM(constants.ptr(), i);
      if (PyCode_Check(constant)) add_code(constant, globals, type);
    }
  }

  // Values of a Python module under the names that code uses.
  void add_members(PyObject* members, PyObject* names) {
    if (is_known_code(members)) return;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(names); ++i) {
      PyObject* value =
          PyDict_GetItemWithError(members, PyTuple_GET_ITEM(names, i));
      if (value != nullptr) add_value(value);
    }
  }

  const py::frozenset& left_out_;
  Stamp stamp_;
  std::vector<const c10::StorageImpl*> memories_;
  std::unordered_set<PyObject*> seen_;
  int depth_ = 0;  // objects of other classes that are being looked into
};

}  // namespace

bool Stamp::add_plain(PyObject* value) {
  std::uint64_t bits = 0;
  if (value == Py_None || PyBool_Check(value)) {
    bits = static_cast<std::uint64_t>(reinterpret_cast<std::uintptr_t>(value));
  } else if (PyLong_Check(value)) {
    int overflow = 0;
    const long long small = PyLong_AsLongLongAndOverflow(value, &overflow);
    bits = static_cast<std::uint64_t>(overflow == 0 ? small
                                                    : PyObject_Hash(value));
  } else if (PyFloat_Check(value)) {
    bits = std::bit_cast<std::uint64_t>(PyFloat_AS_DOUBLE(value));
  } else if (PyUnicode_Check(value) || PyBytes_Check(value)) {
    bits = static_cast<std::uint64_t>(PyObject_Hash(value));
  } else {
    return false;
  }
  add(Py_TYPE(value));
  add(bits);
  return true;
}

ModuleState module_state(py::handle module, const py::frozenset& left_out) {
  StateWalk walk(left_out);
  walk.add_module(module.ptr());
  return std::move(walk).result();
}

std::uint64_t code_state(const std::vector<py::handle>& modules,
                         const py::frozenset& left_out) {
  StateWalk walk(left_out);
  for (const py::handle module : modules) {
    walk.add_forward(Py_TYPE(module.ptr()));
  }
  return std::move(walk).result().stamp;
}

std::uint64_t numeric_settings() {
  Stamp stamp;
  const auto add = [&](auto value) {
    stamp.add(static_cast<std::uint64_t>(value));
  };
  const at::Context& context = at::globalContext();
  add(at::get_num_threads());
  add(context.userEnabledMkldnn());
  add(context.deterministicMkldnn());
  add(context.userEnabledNNPACK());
  add(context.userEnabledCuDNN());
  add(context.benchmarkCuDNN());
  add(context.deterministicCuDNN());
  add(context.deterministicAlgorithms());
  add(context.deterministicFillUninitializedMemory());
  add(context.float32Precision(at::Float32Backend::GENERIC,
                               at::Float32Op::ALL));
  for (const auto backend :
       {at::Float32Backend::CUDA, at::Float32Backend::MKLDNN}) {
    for (const auto op : {at::Float32Op::ALL, at::Float32Op::CONV,
                          at::Float32Op::RNN, at::Float32Op::MATMUL}) {
      add(context.float32Precision(backend, op));
    }
  }
  add(context.allowFP16ReductionCuBLAS());
  add(context.allowBF16ReductionCuBLAS());
  add(context.allowFP16AccumulationCuBLAS());
  add(context.allowFP16BF16ReductionMathSDP());
  add(context.userEnabledFlashSDP());
  add(context.userEnabledMemEfficientSDP());
  add(context.userEnabledMathSDP());
  add(context.userEnabledCuDNNSDP());
  add(context.qEngine());
  add(c10::get_default_dtype_as_scalartype());
  for (const auto device : {at::kCPU, at::kCUDA}) {
    add(at::autocast::is_autocast_enabled(device));
    add(at::autocast::get_autocast_dtype(device));
  }
#if defined(__SSE__)
  add(_mm_getcsr() & 0xE040U);  // rounding, flushing of denormals
#endif
  return stamp.sum();
}

}  // namespace aimetpp::python
