// SPDX-License-Identifier: BSD-3-Clause
#include "python/eager_ops.h"

#include <ATen/PythonTorchFunctionTLS.h>
#include <torch/csrc/Exceptions.h>
#include <torch/csrc/autograd/python_variable.h>
#include <torch/csrc/jit/frontend/tracer.h>
#include <torch/csrc/utils/pybind.h>

#include <cstdint>
#include <optional>

#include "ops/fake_quant.h"

namespace aimetpp::python {
namespace {

// The arguments of fake_quantize, borrowed.
struct Arguments {
  const at::Tensor& x;
  const at::Tensor& min;
  const at::Tensor& max;
  const at::Tensor& grid;
  bool symmetric;
  std::optional<std::int64_t> channel_axis;
};

// nullopt for what torch.ops has to look at: arguments of other types, with
// whatever it makes of them, a torch function mode, a tracer.
std::optional<Arguments> parse(PyObject* const* args, Py_ssize_t count) {
  constexpr Py_ssize_t kTensors = 4;
  if (count != kTensors + 2 || at::impl::torch_function_mode_enabled() ||
      torch::jit::tracer::isTracing()) {
    return std::nullopt;
  }
  for (Py_ssize_t i = 0; i < kTensors; ++i) {
    if (!THPVariable_CheckExact(args[i])) return std::nullopt;
  }
  PyObject* const symmetric = args[kTensors];
  PyObject* const axis = args[kTensors + 1];
  if (!PyBool_Check(symmetric)) return std::nullopt;
  std::optional<std::int64_t> channel_axis;
  if (axis != Py_None) {
    if (!PyLong_CheckExact(axis)) return std::nullopt;
    int overflow = 0;
    channel_axis = PyLong_AsLongLongAndOverflow(axis, &overflow);
    if (overflow != 0) return std::nullopt;
  }
  return Arguments{THPVariable_Unpack(args[0]), THPVariable_Unpack(args[1]),
                   THPVariable_Unpack(args[2]), THPVariable_Unpack(args[3]),
                   symmetric == Py_True,        channel_axis};
}

PyObject* fake_quantize(PyObject* /*module*/, PyObject* const* args,
                        Py_ssize_t count) {
  HANDLE_TH_ERRORS
  const auto parsed = parse(args, count);
  if (!parsed) Py_RETURN_NONE;
  const auto& [x, min, max, grid, symmetric, channel_axis] = *parsed;
  at::Tensor result;
  {
    const py::gil_scoped_release release;
    result = ops::fake_quantize(x, min, max, grid, symmetric, channel_axis);
  }
  return THPVariable_Wrap(std::move(result));
  END_HANDLE_TH_ERRORS
}

PyObject* fake_quantize_(PyObject* /*module*/, PyObject* const* args,
                         Py_ssize_t count) {
  HANDLE_TH_ERRORS
  const auto parsed = parse(args, count);
  if (!parsed) Py_RETURN_NONE;
  const auto& [x, min, max, grid, symmetric, channel_axis] = *parsed;
  {
    const py::gil_scoped_release release;
    ops::fake_quantize_(x, min, max, grid, symmetric, channel_axis);
  }
  return Py_NewRef(args[0]);
  END_HANDLE_TH_ERRORS
}

}  // namespace

void bind_eager_ops(pybind11::module_& m) {
  // Not by pybind11: reading six arguments would take most of what is saved.
  using AnyFunction = void (*)();
  const auto method = [](const char* name, auto* function, const char* doc) {
    // As CPython's documentation casts functions that METH_FASTCALL calls.
    return PyMethodDef{
        name,
        reinterpret_cast<PyCFunction>(reinterpret_cast<AnyFunction>(function)),
        METH_FASTCALL, doc};
  };
  static PyMethodDef methods[] = {
      method("fake_quantize", &fake_quantize,
             "The op's result, or None where torch.ops has to be asked."),
      method("fake_quantize_", &fake_quantize_,
             "x, or None where torch.ops has to be asked."),
      PyMethodDef{}};
  if (PyModule_AddFunctions(m.ptr(), methods) != 0) {
    throw py::error_already_set();
  }
}

}  // namespace aimetpp::python
