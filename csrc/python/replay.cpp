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
#include "python/stamp.h"
#include "python/tensor_state.h"

namespace aimetpp::python {
namespace {

// Which tensors, at which memory, as of which write. With `content` also their
// bytes on the CPU: a write through `tensor.data` is none that they know of.
void add_tensors(py::handle dict, bool content, Stamp* stamp) {
  Py_ssize_t position = 0;
  PyObject* value = nullptr;
  while (PyDict_Next(dict.ptr(), &position, nullptr, &value) != 0) {
    stamp->add(value);
    if (!THPVariable_Check(value)) continue;
    const at::Tensor& tensor = THPVariable_Unpack(value);
    if (!tensor.has_storage()) continue;
    stamp->add(tensor.storage().data());
    if (!tensor.is_inference()) {
      stamp->add(static_cast<std::uint64_t>(tensor._version()));
    }
    if (content) stamp->add(content_of(tensor).value_or(0));
  }
}

void add_values(py::handle dict, Stamp* stamp) {
  Py_ssize_t position = 0;
  PyObject* value = nullptr;
  while (PyDict_Next(dict.ptr(), &position, nullptr, &value) != 0) {
    stamp->add(value);
  }
}

// Numbers, strings and flags among the attributes.
void add_plain(py::handle dict, Stamp* stamp) {
  Py_ssize_t position = 0;
  PyObject* value = nullptr;
  while (PyDict_Next(dict.ptr(), &position, nullptr, &value) != 0) {
    stamp->add_plain(value);
  }
}

void add_hooks(const Attributes& attributes, Stamp* stamp) {
  static const Name before("_forward_pre_hooks"), after("_forward_hooks");
  add_values(attributes.at(before), stamp);
  add_values(attributes.at(after), stamp);
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
    add_tensors(attributes.at(parameters), false, &stamp);
    add_tensors(attributes.at(buffers), false, &stamp);
    stamp.add(attributes.at(training).ptr());
    add_hooks(attributes, &stamp);
  }
  for (const py::handle hooks :
       py::reinterpret_borrow<py::tuple>(python_side.global_hooks)) {
    add_values(hooks, &stamp);
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
      add_plain(attributes.dict(), &stamp);
      add_tensors(attributes.at(parameters), true, &stamp);
      add_tensors(attributes.at(buffers), true, &stamp);
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
  m.def("code_state", &code_state, py::arg("modules"), py::arg("left_out"));
  m.def("numeric_settings", &numeric_settings);
  m.def("quantizer_stamps", &quantizer_stamps, py::arg("slots"));
  py::class_<ActivationStore, std::shared_ptr<ActivationStore>>(
      m, "ActivationStore")
      .def(py::init<std::int64_t, const py::frozenset&>(), py::arg("budget"),
           py::arg("left_out"))
      .def_property_readonly("budget", &ActivationStore::budget)
      .def_property_readonly("bytes", &ActivationStore::bytes)
      .def_property_readonly("num_refused", &ActivationStore::num_refused)
      .def_property_readonly("peak_bytes", &ActivationStore::peak_bytes);
  py::class_<Recording>(m, "Recording")
      .def(py::init<std::shared_ptr<ActivationStore>, int,
                    const std::vector<at::Tensor>&>(),
           py::arg("store"), py::arg("num_calls"), py::arg("inputs"))
      .def("forget", &Recording::forget, py::arg("calls"))
      .def("begin", &Recording::begin, py::arg("changed"),
           py::arg("keep_changed"))
      .def("call", &Recording::call, py::arg("index"), py::arg("args"),
           py::arg("kwargs"), py::arg("compute"), py::arg("module"))
      .def("note_read", &Recording::note_read, py::arg("value"))
      .def("note_exposed", &Recording::note_exposed, py::arg("value"))
      .def("end", &Recording::end)
      .def("clear", &Recording::clear)
      .def("holds", &Recording::holds, py::arg("tensor"))
      .def_property_readonly("num_replayed", &Recording::num_replayed)
      .def_property_readonly("differs", &Recording::differs)
      .def_property_readonly("inputs_written", &Recording::inputs_written)
      .def_property_readonly("num_strays", &Recording::num_strays);
}

}  // namespace aimetpp::python
