// SPDX-License-Identifier: BSD-3-Clause
#include "python/quantized_call.h"

#include <ATen/PythonTorchFunctionTLS.h>
#include <ATen/core/grad_mode.h>
#include <c10/util/SmallVector.h>
#include <torch/csrc/PyInterpreter.h>

#include <memory>
#include <optional>
#include <string>

#include "python/activation.h"
#include "python/quantizer_view.h"
#include "python/weight_cache.h"

namespace aimetpp::python {
namespace {

using Quantizers = c10::SmallVector<py::object, 4>;  // None: left alone

bool any(const Quantizers& quantizers) {
  for (const py::object& quantizer : quantizers) {
    if (!quantizer.is_none()) return true;
  }
  return false;
}

// As is_markable in nn/runtime.py.
bool is_markable(const at::Tensor& tensor) {
  return tensor.is_floating_point() && tensor.dim() > 0;
}

// Holds no tensor, whatever pytree makes of it.
bool is_constant(PyObject* object) {
  if (object == Py_None || PyLong_Check(object) || PyFloat_Check(object) ||
      PyUnicode_Check(object)) {
    return true;
  }
  if (!PyTuple_CheckExact(object)) return false;
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(object); ++i) {
    if (!is_constant(PyTuple_GET_ITEM(object, i))) return false;
  }
  return true;
}

// Positional tensors and constants only: their order is pytree's.
bool is_flat(const py::tuple& args, const py::dict& kwargs) {
  for (const py::handle arg : args) {
    if (!THPVariable_Check(arg.ptr()) && !is_constant(arg.ptr())) return false;
  }
  for (const auto& [name, value] : kwargs) {
    if (!is_constant(value.ptr())) return false;
  }
  return true;
}

// True where no one can see the tensor but who holds this one reference to the
// object: no other name, weak reference, view or alias of its memory, and
// memory that torch allocated (not that of an array, say).
bool is_only_ours(PyObject* object) {
#ifdef Py_GIL_DISABLED
  return false;  // reference counts are spread over threads
#else
  if (Py_REFCNT(object) != 1 ||
      reinterpret_cast<PyObject*>(Py_TYPE(object)) != THPVariableClass ||
      *PyObject_GET_WEAKREFS_LISTPTR(object) != nullptr) {
    return false;
  }
  const at::Tensor& tensor = THPVariable_Unpack(object);
  if (tensor.use_count() != 1 || tensor.requires_grad() || !is_plain(tensor) ||
      !tensor.has_storage() || !tensor.is_non_overlapping_and_dense()) {
    return false;
  }
  const at::Storage& storage = tensor.storage();
  return storage.use_count() == 1 && storage.resizable() &&
         storage.allocator() != nullptr;
#endif
}

// Whether quantizing `tensor` over itself is what the quantizer computes.
std::optional<QuantizerView> inplace_view(py::handle quantizer,
                                          const at::Tensor& tensor) {
  if (!nobody_watches() || !is_plain(tensor)) return std::nullopt;
  return view_of(quantizer);
}

// quantizer(result), in its memory where only we hold it. Takes our reference.
py::object quantized_result(py::handle quantizer, py::object result) {
  const at::Tensor& tensor = THPVariable_Unpack(result.ptr());
  if (is_only_ours(result.ptr())) {
    if (const auto view = inplace_view(quantizer, tensor)) {
      view->fake_quantize_(tensor);
      return result;
    }
  }
  return quantized(quantizer, result);
}

// What an op that overwrites its input leaves in it, quantized there: its other
// names (the variable in `x.add_(y)`) must see the quantized values too.
py::object quantize_overwritten(py::handle quantizer, py::handle target,
                                py::object result) {
  const at::Tensor& tensor = THPVariable_Unpack(result.ptr());
  if (result.is(target) && THPVariable_CheckExact(result.ptr()) &&
      tensor.is_non_overlapping_and_dense()) {
    if (const auto view = inplace_view(quantizer, tensor)) {
      view->fake_quantize_(tensor);
      return result;
    }
  }
  if (!quantizer.is_none()) result = quantized(quantizer, result);
  return target.attr("copy_")(result);
}

// One call and what stands around it: the k-th markable input passes through
// inputs[k], the k-th markable result through outputs[k].
struct Around {
  Quantizers inputs;
  Quantizers outputs;
  std::optional<int> overwrites;  // the input that the call writes and returns
};

// The arguments with the k-th markable tensor passed through inputs[k].
py::tuple quantized_inputs(const py::tuple& args, const Around& around,
                           py::object* target) {
  py::tuple entered(args.size());
  int position = 0;
  for (std::size_t i = 0; i < args.size(); ++i) {
    py::object value = args[i];
    if (THPVariable_Check(value.ptr()) &&
        is_markable(THPVariable_Unpack(value.ptr()))) {
      if (around.overwrites == position) *target = value;
      const auto k = static_cast<std::size_t>(position++);
      if (k < around.inputs.size() && !around.inputs[k].is_none()) {
        value = quantized(around.inputs[k], value);
      }
    }
    entered[i] = std::move(value);
  }
  return entered;
}

py::list as_list(const Quantizers& quantizers) {
  py::list list;
  for (const py::object& quantizer : quantizers) list.append(quantizer);
  return list;
}

// `call(args)` runs the function; `in_python()` runs it with all around it, for
// what is too rare to be handled here.
template <typename Call, typename InPython>
py::object run_quantized(Around around, py::tuple args, const py::dict& kwargs,
                         const Call& call, const InPython& in_python) {
  const bool quantizes_outputs = any(around.outputs);
  if (!quantizes_outputs) around.overwrites.reset();
  py::object target;
  if (around.overwrites || any(around.inputs)) {
    // With gradients an op that overwrites runs on a copy.
    if ((around.overwrites && at::GradMode::is_enabled()) ||
        !is_flat(args, kwargs)) {
      return in_python();
    }
    args = quantized_inputs(args, around, &target);
  }
  py::object result = call(args);
  if (!quantizes_outputs) return result;
  if (!THPVariable_Check(result.ptr())) {
    return python_side.quantize_results(result, as_list(around.outputs),
                                        target ? target : py::none());
  }
  if (!is_markable(THPVariable_Unpack(result.ptr()))) return result;
  const py::object& quantizer = around.outputs[0];
  if (target) return quantize_overwritten(quantizer, target, std::move(result));
  if (quantizer.is_none()) return result;
  return quantized_result(quantizer, std::move(result));
}

py::object call_python(py::handle function, const py::tuple& args,
                       const py::dict& kwargs) {
  PyObject* result = PyObject_Call(function.ptr(), args.ptr(), kwargs.ptr());
  if (result == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(result);
}

// A leaf's forward runs: its parameters read as quantized, and the mode that
// sees functional ops is off, since nothing inside a leaf is a site.
class LeafScope {
 public:
  LeafScope(const Attributes& leaf, const py::list& frames, py::handle mode)
      : leaf_(leaf), frames_(frames) {
    using Stack = at::impl::PythonTorchFunctionTLS;
    const std::int64_t size = Stack::stack_len();
    py::object frame = py::none();
    if (size > 0 && !mode.is_none() &&
        Stack::get_stack_at(size - 1)->ptr(getPyInterpreter()) == mode.ptr()) {
      mode_ = Stack::pop_stack();
      // frame in nn/runtime.py then knows that it is off.
      frame = py::reinterpret_borrow<py::object>(mode);
    }
    if (PyList_Append(frames_.ptr(), frame.ptr()) != 0) {
      throw py::error_already_set();
    }
    leaf_.set(running(), py::handle(Py_True));
  }
  ~LeafScope() {
    // A leaf that runs on its own is no part of a forward that would do it.
    if (PyList_GET_SIZE(frames_.ptr()) == 1) release_scratch();
    PyDict_SetItem(leaf_.dict().ptr(), running().get(), Py_False);
    PyList_SetSlice(frames_.ptr(), PyList_GET_SIZE(frames_.ptr()) - 1,
                    PyList_GET_SIZE(frames_.ptr()), nullptr);
    if (mode_) {
      at::impl::PythonTorchFunctionTLS::push_onto_stack(std::move(mode_));
    }
  }
  LeafScope(const LeafScope&) = delete;
  LeafScope& operator=(const LeafScope&) = delete;

 private:
  static const Name& running() {
    static const Name name("_aimetpp_running");
    return name;
  }

  const Attributes& leaf_;
  const py::list& frames_;
  std::shared_ptr<c10::SafePyObject> mode_;
};

// Turns the `inplace` of one of PyTorch's own modules (nn.ReLU and its like)
// off while it runs.
class InplaceOff {
 public:
  InplaceOff(py::handle leaf, const Attributes& attributes)
      : attributes_(attributes) {
    const py::str module =
        leaf.attr("_aimetpp_original_forward").attr("__module__");
    on_ = module.cast<std::string>().rfind("torch.nn.modules.", 0) == 0 &&
          attributes.has(name()) && attributes.at(name()).ptr() == Py_True;
    if (on_) attributes_.set(name(), py::handle(Py_False));
  }
  ~InplaceOff() {
    if (on_) PyDict_SetItem(attributes_.dict().ptr(), name().get(), Py_True);
  }
  InplaceOff(const InplaceOff&) = delete;
  InplaceOff& operator=(const InplaceOff&) = delete;
  explicit operator bool() const { return on_; }

 private:
  static const Name& name() {
    static const Name inplace("inplace");
    return inplace;
  }

  const Attributes& attributes_;
  bool on_ = false;
};

py::object wrapped(const at::Tensor& tensor) {
  return py::reinterpret_steal<py::object>(THPVariable_Wrap(tensor));
}

// A module that would overwrite args[0], run with gradients on but without
// overwriting: what autograd saves stays, and the input's other names get the
// quantized values at the end.
template <typename Call>
py::object overwritten_with_gradients(const Around& around,
                                      const py::tuple& args, const Call& call) {
  const py::object target = args[0];
  py::object input = wrapped(ops::hand_over(THPVariable_Unpack(target.ptr())));
  if (!around.inputs.empty() && !around.inputs[0].is_none()) {
    input = quantized(around.inputs[0], input);
  }
  const py::object result = call(py::make_tuple(std::move(input)));
  const at::Tensor y =
      THPVariable_Unpack(quantized(around.outputs[0], result).ptr());
  ops::replace_value(THPVariable_Unpack(target.ptr()), y);
  return target;
}

// `count` entries of a ModuleList from `first` on.
Quantizers slots_of(const py::handle modules, const Name& container,
                    Py_ssize_t first, Py_ssize_t count) {
  static const Name entries("_modules");
  const Attributes list(Attributes::item(modules, container));
  Quantizers slots;
  Py_ssize_t iterator = 0;
  PyObject* quantizer = nullptr;
  const py::handle dict = list.at(entries);
  for (Py_ssize_t i = 0; i < first + count; ++i) {
    if (PyDict_Next(dict.ptr(), &iterator, nullptr, &quantizer) == 0) break;
    if (i >= first) {
      slots.push_back(py::reinterpret_borrow<py::object>(quantizer));
    }
  }
  return slots;
}

// The `call`-th call of a quantized leaf.
py::object leaf_call(const py::object& leaf, const py::tuple& args,
                     const py::dict& kwargs, Py_ssize_t call,
                     const py::list& frames, py::handle mode) {
  static const Name modules("_modules"), record("_aimetpp"),
      num_inputs("num_inputs"), num_outputs("num_outputs"),
      overwrites("overwrites"), input_quantizers("input_quantizers"),
      output_quantizers("output_quantizers"), name("name"), weights("weights");
  const Attributes attributes(leaf);
  const Attributes known(attributes.at(record));
  const Event event(kCallEvent, known.at(name));
  const auto inputs = known.at(num_inputs).cast<Py_ssize_t>();
  const auto outputs = known.at(num_outputs).cast<Py_ssize_t>();
  const py::handle children = attributes.at(modules);
  Around around{slots_of(children, input_quantizers, call * inputs, inputs),
                slots_of(children, output_quantizers, call * outputs, outputs),
                known.at(overwrites).cast<std::optional<int>>()};
  const LeafScope scope(attributes, frames, mode);
  if (args.size() == 1 && kwargs.empty() && around.outputs.size() == 1 &&
      !any(around.inputs) && any(around.outputs)) {
    if (auto result =
            quantized_activation(attributes, py::type::handle_of(leaf), args[0],
                                 around.outputs[0], around.overwrites == 0)) {
      return *std::move(result);
    }
  }
  if (around.overwrites == 0 && at::GradMode::is_enabled() &&
      args.size() == 1 && kwargs.empty() && any(around.outputs) &&
      THPVariable_CheckExact(args[0].ptr()) &&
      ops::can_hand_over(THPVariable_Unpack(args[0].ptr()))) {
    if (const InplaceOff off(leaf, attributes); off) {
      return overwritten_with_gradients(
          around, args, [&](const py::tuple& entered) {
            return call_python(leaf.attr("_aimetpp_original_forward"), entered,
                               kwargs);
          });
    }
  }
  return run_quantized(
      std::move(around), args, kwargs,
      [&](const py::tuple& entered) {
        py::object result = call_python(leaf.attr("_aimetpp_original_forward"),
                                        entered, kwargs);
        known.at(weights).cast<WeightCache&>().note_result(result);
        return result;
      },
      [&] { return python_side.leaf_call(leaf, args, kwargs, call); });
}

// One functional op.
py::object functional_call(const py::object& function, const py::tuple& args,
                           const py::dict& kwargs, const py::list& inputs,
                           const py::list& outputs,
                           std::optional<int> overwrites, const py::str& name) {
  const Event event(kCallEvent, name);
  const auto owned = [](const py::list& list) {
    Quantizers quantizers;
    for (const py::handle entry : list) {
      quantizers.push_back(py::reinterpret_borrow<py::object>(entry));
    }
    return quantizers;
  };
  return run_quantized(
      Around{owned(inputs), owned(outputs), overwrites}, args, kwargs,
      [&](const py::tuple& entered) {
        return call_python(function, entered, kwargs);
      },
      [&] {
        return python_side.run_quantized(function, args, kwargs, inputs,
                                         outputs, overwrites);
      });
}

}  // namespace

void bind_quantized_call(py::module_& m) {
  m.def(
      "register_quantizer",
      [](const py::object& cls, const py::tuple& global_hooks) {
        python_side.quantizer_class = py::object(cls).release();
        python_side.global_hooks = py::object(global_hooks).release();
      },
      py::arg("cls"), py::arg("global_hooks"));
  m.def(
      "register_run_time",
      [](const py::object& run_quantized, const py::object& quantize_results,
         const py::object& leaf_call) {
        python_side.run_quantized = py::object(run_quantized).release();
        python_side.quantize_results = py::object(quantize_results).release();
        python_side.leaf_call = py::object(leaf_call).release();
      },
      py::arg("run_quantized"), py::arg("quantize_results"),
      py::arg("leaf_call"));
  m.def("leaf_call", &leaf_call, py::arg("leaf"), py::arg("args"),
        py::arg("kwargs"), py::arg("call"), py::arg("frames"), py::arg("mode"));
  m.def("functional_call", &functional_call, py::arg("function"),
        py::arg("args"), py::arg("kwargs"), py::arg("inputs"),
        py::arg("outputs"), py::arg("overwrites"), py::arg("name"));
  bind_weight_cache(m);
}

}  // namespace aimetpp::python
