// SPDX-License-Identifier: BSD-3-Clause
#include "python/weight_cache.h"

#include <ATen/core/grad_mode.h>
#include <c10/core/InferenceMode.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <c10/core/impl/TorchDispatchModeTLS.h>
#include <torch/csrc/jit/frontend/tracer.h>

#include <algorithm>
#include <utility>

#include "core/error.h"
#include "ops/fake_quant.h"
#include "python/tensor_state.h"

namespace aimetpp::python {
namespace {

bool can_be_kept(const at::Tensor& tensor) {
  return is_plain(tensor) && tensor.is_cpu() &&
         tensor.is_non_overlapping_and_dense();
}

std::vector<std::uint64_t> fingerprint(const QuantizerView& view) {
  return {hash_of(view.min),
          hash_of(view.max),
          hash_of(view.grid),
          static_cast<std::uint64_t>(view.min.scalar_type()),
          static_cast<std::uint64_t>(view.symmetric),
          static_cast<std::uint64_t>(view.channel_axis.value_or(-1))};
}

// Zeros have the same bytes in float16 as in bfloat16.
void add_content(const at::Tensor& tensor,
                 std::vector<std::uint64_t>* content) {
  content->push_back(hash_of(tensor));
  content->push_back(static_cast<std::uint64_t>(tensor.scalar_type()));
}

// Of a module whose call uses each element of a weight this many times (a
// convolution at this many places of the batch, a linear layer on this many
// rows), quantizing takes a few percent of the time at most.
constexpr std::int64_t kManyUses = 128;

constexpr std::pair<Keep, const char*> kKeepNames[] = {
    {Keep::kAuto, "auto"}, {Keep::kAll, "all"}, {Keep::kNone, "none"}};

bool same_layout(const at::Tensor& a, const at::Tensor& b) {
  return a.scalar_type() == b.scalar_type() && a.sizes() == b.sizes() &&
         a.strides() == b.strides();
}

// Memory that is used again costs no page faults. Whoever still holds a tensor
// in it has it for good.
at::Storage& scratch() {
  static auto* const storage = new at::Storage();  // outlives every module
  return *storage;
}

at::Tensor scratch_like(const at::Tensor& x) {
  at::Storage& memory = scratch();
  const bool free = memory && memory.use_count() == 1;
  if (free && memory.nbytes() >= x.nbytes()) {
    at::Tensor tensor = at::detail::make_tensor<c10::TensorImpl>(
        at::Storage(memory), c10::DispatchKeySet(c10::DispatchKey::CPU),
        x.dtype());
    tensor.unsafeGetTensorImpl()->set_sizes_and_strides(x.sizes(), x.strides());
    return tensor;
  }
  memory = at::Storage();
  at::Tensor tensor = ops::empty_result(x);
  memory = tensor.storage();
  return tensor;
}

}  // namespace

void release_scratch() { scratch() = at::Storage(); }

bool nobody_watches() {
  using c10::DispatchKey;
  constexpr c10::DispatchKeySet kWatchers(
      {DispatchKey::Python, DispatchKey::PythonTLSSnapshot,
       DispatchKey::Functionalize, DispatchKey::FuncTorchDynamicLayerFrontMode,
       DispatchKey::FuncTorchDynamicLayerBackMode});
  return !at::GradMode::is_enabled() && !torch::jit::tracer::isTracing() &&
         !c10::impl::TorchDispatchModeTLS::any_modes_set() &&
         !c10::impl::tls_local_dispatch_key_set().included_.has_any(kWatchers);
}

bool is_plain(const at::Tensor& tensor) {
  using c10::DispatchKey;
  constexpr c10::DispatchKeySet kWrappers(
      {DispatchKey::Python, DispatchKey::PythonTLSSnapshot,
       DispatchKey::Functionalize, DispatchKey::FuncTorchBatched,
       DispatchKey::FuncTorchGradWrapper, DispatchKey::Conjugate,
       DispatchKey::Negative, DispatchKey::ZeroTensor});
  return tensor.layout() == at::kStrided &&
         !tensor.key_set().has_any(kWrappers) &&
         !tensor._fw_grad(/*level=*/0).defined();
}

py::object WeightCache::get(const std::string& name, py::handle quantizer,
                            py::handle parameter) {
  const auto view = THPVariable_CheckExact(parameter.ptr()) ? view_of(quantizer)
                                                            : std::nullopt;
  if (!view || !nobody_watches()) {
    entries_.erase(name);
    return quantized(quantizer, parameter);
  }
  const at::Tensor& source = THPVariable_Unpack(parameter.ptr());
  if (!can_be_kept(source) || !can_be_kept(view->min) ||
      !can_be_kept(view->max) || !can_be_kept(view->grid)) {
    return quantized(quantizer, parameter);
  }
  if (!keeps(source)) {
    entries_.erase(name);
    const at::Tensor made = scratch_like(source);
    view->fake_quantize_into(made, source);
    return py::reinterpret_steal<py::object>(THPVariable_Wrap(made));
  }
  const Event event(kSiteEvent, view->label);
  Entry& entry = entries_[name];
  const std::uint64_t content = hash_of(source);
  std::vector<std::uint64_t> encoding = fingerprint(*view);
  const bool fits =
      entry.quantized.defined() && same_layout(entry.quantized, source);
  if (!fits || !entry.is_untouched() || entry.content != content ||
      entry.encoding != encoding) {
    // An ordinary tensor also in inference mode, since it outlives that.
    const c10::InferenceMode ordinary(false);
    const at::NoGradGuard no_grad;
    if (fits && entry.quantized.use_count() == 1 &&
        entry.quantized.storage().use_count() == 1) {
      view->fake_quantize_into(entry.quantized, source);
    } else {
      entry.quantized = view->fake_quantize(source);
    }
    entry.note_untouched();
    entry.content = content;
    entry.encoding = std::move(encoding);
  }
  return py::reinterpret_steal<py::object>(THPVariable_Wrap(entry.quantized));
}

bool WeightCache::keeps(const at::Tensor& parameter) const {
  if (keep_ != Keep::kAuto) return keep_ == Keep::kAll;
  // Each output channel has one row of the weight.
  const std::int64_t rows = parameter.dim() > 0 ? parameter.size(0) : 1;
  return result_size_ && *result_size_ < kManyUses * rows;
}

void WeightCache::note_result(py::handle result) {
  PyObject* first = result.ptr();
  if (PyTuple_Check(first) && PyTuple_GET_SIZE(first) > 0) {
    first = PyTuple_GET_ITEM(first, 0);  // recurrent layers: (output, state)
  }
  const bool is_tensor = THPVariable_Check(first);
  result_size_ = is_tensor ? THPVariable_Unpack(first).numel() : 0;
}

std::string WeightCache::keep() const {
  for (const auto& [keep, name] : kKeepNames) {
    if (keep == keep_) return name;
  }
  return "";
}

void WeightCache::set_keep(const std::string& keep) {
  for (const auto& [value, name] : kKeepNames) {
    if (keep == name) {
      keep_ = value;
      return;
    }
  }
  raise_value_error(
      "kept_weights must be \"auto\", \"all\" or \"none\", got \"", keep, "\"");
}

std::optional<at::Tensor> WeightCache::find_made(
    const std::string& name, const at::Tensor& parameter,
    const std::vector<py::handle>& quantizers) const {
  const auto entry = entries_.find(name);
  if (entry == entries_.end() || !entry->second.is_untouched() ||
      !nobody_watches() || !can_be_kept(parameter)) {
    return std::nullopt;
  }
  std::vector<std::uint64_t> content;
  content.reserve(2 * (1 + 3 * quantizers.size()));
  add_content(parameter, &content);
  for (const py::handle quantizer : quantizers) {
    const auto view = view_of(quantizer);
    if (!view) return std::nullopt;
    for (const at::Tensor* part : {&view->min, &view->max, &view->grid}) {
      if (!can_be_kept(*part)) return std::nullopt;
      add_content(*part, &content);
    }
  }
  if (content != entry->second.encoding) return std::nullopt;
  return entry->second.quantized;
}

py::object WeightCache::get_made(const std::string& name,
                                 const std::vector<at::Tensor>& sources,
                                 const py::function& make) {
  if (!nobody_watches() || !std::ranges::all_of(sources, can_be_kept)) {
    entries_.erase(name);
    return make();
  }
  std::vector<std::uint64_t> content;
  for (const at::Tensor& source : sources) add_content(source, &content);
  Entry& entry = entries_[name];
  if (!entry.is_untouched() || entry.encoding != content) {
    const c10::InferenceMode ordinary(false);
    const at::NoGradGuard no_grad;
    entry.quantized = py::cast<at::Tensor>(make());
    entry.note_untouched();
    entry.encoding = std::move(content);
  }
  return py::reinterpret_steal<py::object>(THPVariable_Wrap(entry.quantized));
}

std::int64_t WeightCache::bytes() const {
  std::int64_t sum = 0;
  for (const auto& [name, entry] : entries_) {
    if (entry.quantized.defined()) {
      sum += static_cast<std::int64_t>(entry.quantized.nbytes());
    }
  }
  return sum;
}

void bind_weight_cache(py::module_& m) {
  m.def("release_scratch", &release_scratch);
  py::class_<WeightCache>(m, "WeightCache")
      .def(py::init<>())
      .def("get", &WeightCache::get, py::arg("name"), py::arg("quantizer"),
           py::arg("parameter"))
      .def(
          "find_made",
          [](const WeightCache& cache, const std::string& name,
             const at::Tensor& parameter, const py::args& quantizers) {
            return cache.find_made(name, parameter,
                                   {quantizers.begin(), quantizers.end()});
          },
          py::arg("name"), py::arg("parameter"))
      .def("get_made", &WeightCache::get_made, py::arg("name"),
           py::arg("sources"), py::arg("make"))
      .def("clear", &WeightCache::clear)
      .def_property("keep", &WeightCache::keep, &WeightCache::set_keep)
      .def_property_readonly("bytes", &WeightCache::bytes)
      // A copy begins empty: what is kept is made again when it is used.
      .def(py::pickle(
          [](const WeightCache& cache) { return py::make_tuple(cache.keep()); },
          [](const py::tuple& state) {
            WeightCache cache;
            cache.set_keep(state[0].cast<std::string>());
            return cache;
          }));
}

}  // namespace aimetpp::python
