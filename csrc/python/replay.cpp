// SPDX-License-Identifier: BSD-3-Clause
#include "python/replay.h"

#include <pybind11/stl.h>
#include <torch/csrc/autograd/python_variable.h>

#include <cstdint>
#include <memory>
#include <unordered_set>
#include <vector>

#include "config/placement.h"
#include "graph/downstream.h"
#include "python/quantizer_view.h"
#include "python/recording.h"
#include "python/tensor_state.h"

namespace aimetpp::python {
namespace {

// A number that changes when any of the values fed to it does, but for a chance
// of 2^-64.
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
  // Which tensors, at which memory, as of which write.
  void add_tensors(py::handle dict) {
    Py_ssize_t position = 0;
    PyObject* value = nullptr;
    while (PyDict_Next(dict.ptr(), &position, nullptr, &value) != 0) {
      add(value);
      if (!THPVariable_Check(value)) continue;
      const at::Tensor& tensor = THPVariable_Unpack(value);
      if (tensor.has_storage()) add(tensor.storage().data());
      if (!tensor.is_inference()) {
        add(static_cast<std::uint64_t>(tensor._version()));
      }
    }
  }
  void add_values(py::handle dict) {
    Py_ssize_t position = 0;
    PyObject* value = nullptr;
    while (PyDict_Next(dict.ptr(), &position, nullptr, &value) != 0) {
      add(value);
    }
  }
  // Numbers, strings and flags among the attributes.
  void add_plain(py::handle dict) {
    Py_ssize_t position = 0;
    PyObject* value = nullptr;
    while (PyDict_Next(dict.ptr(), &position, nullptr, &value) != 0) {
      if (value == Py_None || PyLong_Check(value) || PyFloat_Check(value) ||
          PyUnicode_Check(value)) {
        add(static_cast<std::uint64_t>(PyObject_Hash(value)));
      }
    }
  }
  [[nodiscard]] std::uint64_t sum() const { return sum_; }

 private:
  std::uint64_t sum_ = 0;
};

void add_hooks(const Attributes& attributes, Stamp* stamp) {
  static const Name before("_forward_pre_hooks"), after("_forward_hooks");
  stamp->add_values(attributes.at(before));
  stamp->add_values(attributes.at(after));
}

// A module and those below it, each once; not those in children of the names in
// `left_out`.
void collect_modules(py::handle module, const py::frozenset& left_out,
                     std::unordered_set<PyObject*>* seen,
                     std::vector<py::handle>* modules) {
  static const Name children("_modules");
  if (!seen->insert(module.ptr()).second) return;
  modules->push_back(module);
  const Attributes attributes(module);
  Py_ssize_t position = 0;
  PyObject* name = nullptr;
  PyObject* child = nullptr;
  const py::handle dict = attributes.at(children);
  while (PyDict_Next(dict.ptr(), &position, &name, &child) != 0) {
    if (child != Py_None && !left_out.contains(py::handle(name))) {
      collect_modules(child, left_out, seen, modules);
    }
  }
}

std::vector<py::handle> modules_of(const py::object& model,
                                   const py::frozenset& left_out) {
  std::unordered_set<PyObject*> seen;
  std::vector<py::handle> modules;
  collect_modules(model, left_out, &seen, &modules);
  return modules;
}

std::vector<py::handle> modules_in_training(const py::object& model) {
  static const Name training("training");
  std::vector<py::handle> modules = modules_of(model, py::frozenset(py::set()));
  std::erase_if(modules, [](py::handle module) {
    return Attributes(module).at(training).ptr() == Py_False;
  });
  return modules;
}

// Of everything but quantizers that a forward depends on and that is seen from
// outside: modules, parameters, buffers, modes, hooks.
std::uint64_t model_stamp(const py::object& model,
                          const py::frozenset& left_out) {
  static const Name parameters("_parameters"), buffers("_buffers"),
      training("training");
  Stamp stamp;
  for (const py::handle module : modules_of(model, left_out)) {
    const Attributes attributes(module);
    stamp.add(module.ptr());
    stamp.add_tensors(attributes.at(parameters));
    stamp.add_tensors(attributes.at(buffers));
    stamp.add(attributes.at(training).ptr());
    add_hooks(attributes, &stamp);
  }
  for (const py::handle hooks :
       py::reinterpret_borrow<py::tuple>(python_side.global_hooks)) {
    stamp.add_values(hooks);
  }
  return stamp.sum();
}

// Of the bytes of parameters and buffers on the CPU: writes through
// `parameter.data` change no version.
std::uint64_t weight_content(const py::object& model,
                             const py::frozenset& left_out) {
  static const Name parameters("_parameters"), buffers("_buffers");
  Stamp stamp;
  for (const py::handle module : modules_of(model, left_out)) {
    const Attributes attributes(module);
    for (const Name* name : {&parameters, &buffers}) {
      Py_ssize_t position = 0;
      PyObject* value = nullptr;
      const py::handle dict = attributes.at(*name);
      while (PyDict_Next(dict.ptr(), &position, nullptr, &value) != 0) {
        if (!THPVariable_Check(value)) continue;
        const at::Tensor& tensor = THPVariable_Unpack(value);
        if (tensor.has_storage()) stamp.add(content_of(tensor).value_or(0));
      }
    }
  }
  return stamp.sum();
}

// One number per quantizer: which modules stand in its slots, and their state.
std::vector<std::uint64_t> quantizer_stamps(const py::list& slots_of) {
  static const Name parameters("_parameters"), buffers("_buffers");
  std::vector<std::uint64_t> stamps;
  stamps.reserve(slots_of.size());
  for (const py::handle slots : slots_of) {
    Stamp stamp;
    for (const py::handle slot : py::reinterpret_borrow<py::list>(slots)) {
      const auto place = py::reinterpret_borrow<py::tuple>(slot);
      PyObject* quantizer = PyDict_GetItemWithError(py::object(place[0]).ptr(),
                                                    py::object(place[1]).ptr());
      stamp.add(quantizer == Py_None ? nullptr : quantizer);
      if (quantizer == nullptr || quantizer == Py_None) continue;
      const Attributes attributes((py::handle(quantizer)));
      stamp.add_plain(attributes.dict());
      stamp.add_tensors(attributes.at(parameters));
      stamp.add_tensors(attributes.at(buffers));
      add_hooks(attributes, &stamp);
    }
    stamps.push_back(stamp.sum());
  }
  return stamps;
}

std::vector<int> downstream_calls(const graph::OpGraph& graph,
                                  const config::Placement& placement,
                                  const std::vector<int>& quantizers) {
  std::vector<int> sites;
  for (const int quantizer : quantizers) {
    const auto& of_quantizer = placement.quantizers.at(quantizer).sites;
    sites.insert(sites.end(), of_quantizer.begin(), of_quantizer.end());
  }
  return graph::downstream_calls(graph, sites);
}

}  // namespace

void bind_replay(py::module_& m) {
  py::register_exception<ReplayMismatch>(m, "ReplayMismatch",
                                         PyExc_BaseException);
  m.def("downstream_calls", &downstream_calls, py::arg("graph"),
        py::arg("placement"), py::arg("quantizers"));
  m.def("modules_of", &modules_of, py::arg("model"), py::arg("left_out"));
  m.def("modules_in_training", &modules_in_training, py::arg("model"));
  m.def("model_stamp", &model_stamp, py::arg("model"), py::arg("left_out"));
  m.def("weight_content", &weight_content, py::arg("model"),
        py::arg("left_out"));
  m.def("quantizer_stamps", &quantizer_stamps, py::arg("slots"));
  py::class_<ActivationStore, std::shared_ptr<ActivationStore>>(
      m, "ActivationStore")
      .def(py::init<std::int64_t, const std::vector<at::Tensor>&>(),
           py::arg("budget"), py::arg("permanent"))
      .def_property_readonly("budget", &ActivationStore::budget)
      .def_property_readonly("bytes", &ActivationStore::bytes)
      .def_property_readonly("num_refused", &ActivationStore::num_refused)
      .def_property_readonly("peak_bytes", &ActivationStore::peak_bytes);
  py::class_<Recording>(m, "Recording")
      .def(py::init<std::shared_ptr<ActivationStore>, int,
                    const std::vector<at::Tensor>&>(),
           py::arg("store"), py::arg("num_calls"), py::arg("inputs"))
      .def("begin", &Recording::begin, py::arg("changed"), py::arg("keep"))
      .def("call", &Recording::call, py::arg("index"), py::arg("args"),
           py::arg("kwargs"), py::arg("compute"))
      .def("note_read", &Recording::note_read, py::arg("value"))
      .def("end", &Recording::end)
      .def("clear", &Recording::clear)
      .def("holds", &Recording::holds, py::arg("tensor"))
      .def_property_readonly("num_replayed", &Recording::num_replayed)
      .def_property_readonly("num_kept", &Recording::num_kept);
}

}  // namespace aimetpp::python
