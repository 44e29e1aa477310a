// SPDX-License-Identifier: BSD-3-Clause
// What tells whether a tensor is what another one was. Private to python/.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/StorageImpl.h>
#include <c10/util/intrusive_ptr.h>

#include <cstdint>
#include <optional>
#include <vector>

namespace aimetpp::python {

[[nodiscard]] std::uint64_t hash_of_bytes(const void* data, std::int64_t size);

// Of the bytes of a dense CPU tensor, in the order in which they lie.
[[nodiscard]] std::uint64_t hash_of(const at::Tensor& dense);

// Of the bytes of any CPU tensor; nullopt for one on another device.
[[nodiscard]] std::optional<std::uint64_t> content_of(const at::Tensor& tensor);

[[nodiscard]] inline const c10::StorageImpl* memory_of(
    const at::Tensor& tensor) {
  return tensor.has_storage() ? tensor.storage().unsafeGetStorageImpl()
                              : nullptr;
}

// Counts the writes into a tensor that PyTorch knows of.
[[nodiscard]] inline std::int64_t version_of(const at::Tensor& tensor) {
  return tensor.is_inference() ? 0
                               : static_cast<std::int64_t>(tensor._version());
}

[[nodiscard]] std::vector<std::int64_t> versions_of(
    const std::vector<at::Tensor>& tensors);

// A tensor at one moment, without keeping it: which part of which memory, as of
// which write into it, and maybe a hash of its bytes.
class TensorState {
 public:
  TensorState(const at::Tensor& tensor, std::int64_t version);

  // Nothing has been written since, and it is the same memory: the values are
  // those that it had.
  [[nodiscard]] bool is_untouched(const at::Tensor& tensor) const {
    return is_same_memory(tensor) &&
           static_cast<std::int64_t>(tensor._version()) == version_;
  }
  // The same memory, whatever has been written into it.
  [[nodiscard]] bool is_same_memory(const at::Tensor& tensor) const;
  // Other memory with the same bytes.
  [[nodiscard]] bool is_copy(const at::Tensor& tensor) const;

  // Notes the bytes, from `tensor` or from other memory that has them.
  void note_content(const at::Tensor& tensor) { content_ = content_of(tensor); }
  // As above from memory that `whole` is a view of; nothing where `whole` is of
  // another moment or memory.
  void note_content_in(const at::Tensor& whole);
  [[nodiscard]] bool has_content() const { return content_.has_value(); }
  [[nodiscard]] std::int64_t version() const { return version_; }

 private:
  [[nodiscard]] bool has_same_shape(const at::Tensor& tensor) const;

  // Weak: no other storage gets its address while this exists.
  c10::weak_intrusive_ptr<c10::StorageImpl> storage_;
  std::int64_t offset_;
  std::vector<std::int64_t> sizes_;
  std::vector<std::int64_t> strides_;
  at::ScalarType dtype_;
  std::int64_t version_;
  std::optional<std::uint64_t> content_;
};

}  // namespace aimetpp::python
