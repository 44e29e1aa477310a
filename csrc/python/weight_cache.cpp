// SPDX-License-Identifier: BSD-3-Clause
#include "python/weight_cache.h"

#include <ATen/core/grad_mode.h>
#include <c10/core/InferenceMode.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <c10/core/impl/TorchDispatchModeTLS.h>
#include <torch/csrc/jit/frontend/tracer.h>

#include "kernels/content_hash.h"
#include "ops/parallel.h"

namespace aimetpp::python {
namespace {

std::uint64_t hash_of(const at::Tensor& dense) {
  return kernels::cpu::content_hash(dense.const_data_ptr(),
                                    static_cast<std::int64_t>(dense.nbytes()),
                                    ops::at_parallel_for);
}

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

bool same_layout(const at::Tensor& a, const at::Tensor& b) {
  return a.scalar_type() == b.scalar_type() && a.sizes() == b.sizes() &&
         a.strides() == b.strides();
}

}  // namespace

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
         !tensor.key_set().has_any(kWrappers);
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
  const Event event(kSiteEvent, view->label);
  Entry& entry = entries_[name];
  const std::uint64_t content = hash_of(source);
  std::vector<std::uint64_t> encoding = fingerprint(*view);
  const bool fits =
      entry.quantized.defined() && same_layout(entry.quantized, source);
  if (!fits || entry.quantized._version() != entry.version ||
      entry.content != content || entry.encoding != encoding) {
    // An ordinary tensor also in inference mode, since it outlives that.
    const c10::InferenceMode ordinary(false);
    const at::NoGradGuard no_grad;
    if (fits && entry.quantized.use_count() == 1 &&
        entry.quantized.storage().use_count() == 1) {
      entry.quantized.copy_(
          source);  // memory that is there costs no page faults
      view->fake_quantize_(entry.quantized);
    } else {
      entry.quantized = view->fake_quantize(source);
    }
    entry.version = static_cast<std::int64_t>(entry.quantized._version());
    entry.content = content;
    entry.encoding = std::move(encoding);
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

}  // namespace aimetpp::python
