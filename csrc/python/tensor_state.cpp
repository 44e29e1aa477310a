// SPDX-License-Identifier: BSD-3-Clause
#include "python/tensor_state.h"

#include <ATen/ops/as_strided.h>

#include "kernels/content_hash.h"
#include "ops/parallel.h"

namespace aimetpp::python {

std::uint64_t hash_of_bytes(const void* data, std::int64_t size) {
  return kernels::cpu::content_hash(data, size, ops::at_parallel_for);
}

std::uint64_t hash_of(const at::Tensor& dense) {
  return hash_of_bytes(dense.const_data_ptr(),
                       static_cast<std::int64_t>(dense.nbytes()));
}

std::optional<std::uint64_t> content_of(const at::Tensor& tensor) {
  if (!tensor.is_cpu()) return std::nullopt;
  return hash_of(tensor.is_non_overlapping_and_dense() ? tensor
                                                       : tensor.contiguous());
}

std::vector<std::int64_t> versions_of(const std::vector<at::Tensor>& tensors) {
  std::vector<std::int64_t> versions;
  versions.reserve(tensors.size());
  for (const at::Tensor& tensor : tensors) {
    versions.push_back(version_of(tensor));
  }
  return versions;
}

TensorState::TensorState(const at::Tensor& tensor, std::int64_t version)
    : storage_(tensor.storage().getWeakStorageImpl()),
      offset_(tensor.storage_offset()),
      sizes_(tensor.sizes().vec()),
      strides_(tensor.strides().vec()),
      dtype_(tensor.scalar_type()),
      version_(version) {}

bool TensorState::has_same_shape(const at::Tensor& tensor) const {
  return tensor.scalar_type() == dtype_ && tensor.sizes() == sizes_ &&
         tensor.strides() == strides_;
}

bool TensorState::is_same_memory(const at::Tensor& tensor) const {
  return storage_._unsafe_get_target() ==
             tensor.storage().unsafeGetStorageImpl() &&
         tensor.storage_offset() == offset_ && has_same_shape(tensor);
}

bool TensorState::is_copy(const at::Tensor& tensor) const {
  return content_ && tensor.is_cpu() && has_same_shape(tensor) &&
         content_of(tensor) == content_;
}

void TensorState::note_content_in(const at::Tensor& whole) {
  if (content_ || whole.scalar_type() != dtype_ ||
      storage_._unsafe_get_target() != whole.storage().unsafeGetStorageImpl() ||
      static_cast<std::int64_t>(whole._version()) != version_) {
    return;
  }
  note_content(at::as_strided(whole, sizes_, strides_, offset_));
}

}  // namespace aimetpp::python
