// SPDX-License-Identifier: BSD-3-Clause
#include "python/recording.h"

#include <algorithm>
#include <chrono>
#include <limits>
#include <utility>

namespace aimetpp::python {
namespace {

const c10::StorageImpl* memory_of(const at::Tensor& tensor) {
  return tensor.has_storage() ? tensor.storage().unsafeGetStorageImpl()
                              : nullptr;
}

std::int64_t version_of(const at::Tensor& tensor) {
  return tensor.is_inference() ? 0
                               : static_cast<std::int64_t>(tensor._version());
}

std::vector<std::int64_t> versions_of(const std::vector<at::Tensor>& tensors) {
  std::vector<std::int64_t> versions;
  versions.reserve(tensors.size());
  for (const at::Tensor& tensor : tensors) {
    versions.push_back(version_of(tensor));
  }
  return versions;
}

// Bytes of the memory that the tensors show, each piece once.
std::int64_t memory_bytes(const std::vector<at::Tensor>& tensors) {
  std::unordered_set<const c10::StorageImpl*> seen;
  std::int64_t bytes = 0;
  for (const at::Tensor& tensor : tensors) {
    if (seen.insert(memory_of(tensor)).second) {
      bytes += static_cast<std::int64_t>(tensor.storage().nbytes());
    }
  }
  return bytes;
}

double worth(double seconds, std::int64_t bytes) {
  return bytes == 0 ? std::numeric_limits<double>::infinity()
                    : seconds / static_cast<double>(bytes);
}

}  // namespace

ActivationStore::ActivationStore(std::int64_t budget,
                                 const std::vector<at::Tensor>& permanent)
    : budget_(budget) {
  for (const at::Tensor& tensor : permanent) {
    permanent_.insert(memory_of(tensor));
  }
}

bool ActivationStore::make_room(std::int64_t bytes, double seconds_per_byte) {
  if (bytes_ + bytes > budget_) ++refused_;
  if (bytes > budget_) return false;
  while (bytes_ + bytes > budget_) {
    if (ranks_.empty() || std::get<0>(*ranks_.begin()) > seconds_per_byte) {
      return false;
    }
    const auto [rank, recording, memory] = *ranks_.begin();
    recording->drop(memory);
  }
  return true;
}

void ActivationStore::add_bytes(std::int64_t bytes) {
  bytes_ += bytes;
  peak_ = std::max(peak_, bytes_);
}

Recording::Recording(std::shared_ptr<ActivationStore> store, int num_calls,
                     const std::vector<at::Tensor>& inputs)
    : store_(std::move(store)),
      inputs_(inputs),
      input_bytes_(memory_bytes(inputs)),
      changed_(num_calls) {
  store_->add_bytes(input_bytes_);
}

Recording::~Recording() {
  clear();
  store_->add_bytes(-input_bytes_);
}

void Recording::begin(const std::vector<int>& changed, bool keep) {
  changed_.assign(changed_.size(), false);
  std::unordered_set<Memory> stale;
  for (const int call : changed) {
    changed_[call] = true;
    const Kept* kept = keep ? find(call) : nullptr;
    if (kept == nullptr) continue;
    if (kept->passes < 0) stale.insert(memory_of(kept->result.tensors.front()));
    kept_.erase(call);
  }
  // What else is in their memory has been written over.
  for (const Memory memory : stale) {
    for (const int call : units_.at(memory).calls) kept_.erase(call);
    drop(memory);
  }
  keeps_ = keep;
  replayed_ = 0;
  owner_.clear();
  pending_.clear();
}

Recording::Kept* Recording::find(int index) {
  const auto found = kept_.find(index);
  return found == kept_.end() ? nullptr : &found->second;
}

bool Recording::has_same_input(int index, const Kept& kept, int input,
                               const at::Tensor& tensor) {
  const TensorState& before = kept.inputs[input];
  const auto pending = pending_.find(memory_of(tensor));
  const bool overwritten = input == kept.overwrites;
  if (pending == pending_.end()) {
    return !overwritten &&
           (before.is_untouched(tensor) || before.is_copy(tensor));
  }
  // Its values are ahead of the forward: what counts is whose result it is.
  const Kept* owner = find(owner_.at(memory_of(tensor)));
  return owner != nullptr && owner->versions.front() == before.version() &&
         before.is_same_memory(tensor) &&
         (!overwritten || pending->second == index);
}

bool Recording::has_same_inputs(int index, const Kept& kept,
                                const ValueTree& arguments) {
  if (arguments.tensors.size() != kept.inputs.size() ||
      !same_plain(arguments.plain, kept.plain)) {
    return false;
  }
  for (std::size_t i = 0; i < kept.inputs.size(); ++i) {
    if (!has_same_input(index, kept, static_cast<int>(i),
                        arguments.tensors[i])) {
      return false;
    }
  }
  return true;
}

// Whether what the call left is still there, or what wrote over it will give
// its own result.
bool Recording::is_available(const Kept& kept) {
  const auto& tensors = kept.result.tensors;
  if (versions_of(tensors) == kept.versions) return true;
  const Kept* next =
      kept.overwritten_by < 0 ? nullptr : find(kept.overwritten_by);
  return next != nullptr && !kept.read && tensors.size() == 1 &&
         !changed_[kept.overwritten_by] &&
         std::ranges::all_of(kept.readers,
                             [&](int call) {
                               return !changed_[call] && find(call) != nullptr;
                             }) &&
         next->result.tensors.front().is_same(tensors.front()) &&
         next->inputs[next->overwrites].version() == kept.versions.front() &&
         is_available(*next);
}

void Recording::note_reader(int index, const at::Tensor& tensor) {
  const auto owner = owner_.find(memory_of(tensor));
  if (owner == owner_.end()) return;
  if (Kept* read = find(owner->second)) read->readers.insert(index);
}

py::object Recording::replay(int index, Kept* kept,
                             const ValueTree& arguments) {
  ++replayed_;
  for (std::size_t i = 0; i < arguments.tensors.size(); ++i) {
    if (static_cast<int>(i) != kept->overwrites) {
      note_reader(index, arguments.tensors[i]);
    }
  }
  if (kept->passes >= 0) {
    return ValueTree{{arguments.tensors[kept->passes]}, kept->result.plain}
        .value();
  }
  const auto& tensors = kept->result.tensors;
  for (const at::Tensor& tensor : tensors) owner_[memory_of(tensor)] = index;
  pending_.erase(memory_of(tensors.front()));
  if (versions_of(tensors) != kept->versions) {
    pending_[memory_of(tensors.front())] = kept->overwritten_by;
  }
  return kept->result.value();
}

void Recording::refuse_pending(const std::vector<at::Tensor>& tensors) const {
  if (pending_.empty()) return;
  for (const at::Tensor& tensor : tensors) {
    if (pending_.contains(memory_of(tensor))) {
      throw ReplayMismatch("an overwritten tensor is read before its time");
    }
  }
}

int Recording::note_inputs(int index, const std::vector<at::Tensor>& tensors,
                           const std::vector<std::int64_t>& versions,
                           const std::optional<ValueTree>& result) {
  int overwritten = -1;
  int written = 0;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    if (version_of(tensors[i]) == versions[i]) continue;
    ++written;
    if (result && result->tensors.size() == 1 &&
        result->tensors.front().is_same(tensors[i])) {
      overwritten = static_cast<int>(i);
    }
  }
  if (written != 1) overwritten = -1;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const auto owner = owner_.find(memory_of(tensors[i]));
    Kept* read = owner == owner_.end() ? nullptr : find(owner->second);
    if (read == nullptr) continue;
    if (static_cast<int>(i) == overwritten && keeps_ &&
        read->result.tensors.size() == 1 &&
        read->result.tensors.front().is_same(tensors[i]) &&
        read->versions.front() == versions[i]) {
      read->overwritten_by = index;
    } else {
      read->readers.insert(index);
    }
  }
  return overwritten;
}

py::object Recording::call(int index, const py::tuple& args,
                           const py::dict& kwargs, const py::object& compute) {
  const py::tuple given = py::make_tuple(args, kwargs);
  const auto arguments = ValueTree::of(given);
  Kept* kept = changed_[index] || !arguments ? nullptr : find(index);
  if (kept != nullptr && has_same_inputs(index, *kept, *arguments) &&
      is_available(*kept)) {
    return replay(index, kept, *arguments);
  }
  if (!arguments && !pending_.empty()) {
    throw ReplayMismatch("arguments that cannot be looked into");
  }
  const std::vector<at::Tensor> tensors =
      arguments ? arguments->tensors : tensors_in(given);
  refuse_pending(tensors);
  if (!arguments) {
    for (auto& [call, other] : kept_) other.read = true;
  }
  const std::vector<std::int64_t> versions = versions_of(tensors);
  const auto start = std::chrono::steady_clock::now();
  py::object computed = compute();
  const std::chrono::duration<double> time =
      std::chrono::steady_clock::now() - start;
  auto result = ValueTree::of(computed);
  const int overwritten = note_inputs(index, tensors, versions, result);
  if (keeps_ && arguments && result && !result->tensors.empty()) {
    keep(index, *arguments, versions, std::move(*result), overwritten,
         time.count());
  }
  return computed;
}

bool Recording::is_known(Memory memory) const {
  if (units_.contains(memory) || store_->permanent_.contains(memory)) {
    return true;
  }
  return std::ranges::any_of(inputs_, [&](const at::Tensor& tensor) {
    return memory_of(tensor) == memory;
  });
}

bool Recording::is_keepable(Kept* kept, const ValueTree& arguments) {
  const auto& results = kept->result.tensors;
  for (std::size_t i = 0; i < arguments.tensors.size(); ++i) {
    const at::Tensor& input = arguments.tensors[i];
    const int slot = static_cast<int>(i);
    if (slot == kept->overwrites) continue;
    if (version_of(input) != kept->inputs[i].version()) return false;
    if (results.size() == 1 && results.front().is_same(input)) {
      kept->passes = slot;
      return true;
    }
    for (const at::Tensor& result : results) {
      // A view of its input, which costs nothing to make.
      if (memory_of(result) == memory_of(input)) return false;
    }
  }
  // Replayed only after the call that made the memory.
  return kept->overwrites < 0 || units_.contains(memory_of(results.front()));
}

void Recording::keep(int index, const ValueTree& arguments,
                     const std::vector<std::int64_t>& versions,
                     ValueTree result, int overwritten, double seconds) {
  if (const Kept* old = find(index); old != nullptr && old->passes < 0) {
    drop(memory_of(old->result.tensors.front()));
  }
  kept_.erase(index);
  Kept kept;
  kept.plain = arguments.plain;
  kept.overwrites = overwritten;
  kept.versions = versions_of(result.tensors);
  kept.result = std::move(result);
  for (std::size_t i = 0; i < arguments.tensors.size(); ++i) {
    kept.inputs.emplace_back(arguments.tensors[i], versions[i]);
  }
  if (!is_keepable(&kept, arguments)) return;
  if (kept.passes >= 0) {
    kept.result.tensors.clear();
    kept.versions.clear();
    kept_.emplace(index, std::move(kept));
    return;
  }
  const Memory memory = memory_of(kept.result.tensors.front());
  const std::int64_t bytes =
      units_.contains(memory) ? 0 : memory_bytes(kept.result.tensors);
  if (!store_->make_room(bytes, worth(seconds, bytes))) return;
  for (std::size_t i = 0; i < kept.inputs.size(); ++i) {
    const at::Tensor& input = arguments.tensors[i];
    if (static_cast<int>(i) != overwritten && !is_known(memory_of(input))) {
      kept.inputs[i].note_content(input);
    }
  }
  add_to_unit(index, memory, bytes, seconds);
  for (const at::Tensor& tensor : kept.result.tensors) {
    owner_[memory_of(tensor)] = index;
  }
  kept_.emplace(index, std::move(kept));
}

void Recording::add_to_unit(int index, Memory memory, std::int64_t bytes,
                            double seconds) {
  Unit& unit = units_[memory];
  store_->ranks_.erase({worth(unit.seconds, unit.bytes), this, memory});
  unit.bytes += bytes;
  unit.seconds += seconds;
  unit.calls.push_back(index);
  store_->ranks_.emplace(worth(unit.seconds, unit.bytes), this, memory);
  store_->add_bytes(bytes);
}

// Calls that read what is dropped know its bytes from now on, so that a copy
// of it will do.
void Recording::drop(Memory memory) {
  const auto found = units_.find(memory);
  if (found == units_.end()) return;
  const Unit unit = std::move(found->second);
  units_.erase(found);
  store_->ranks_.erase({worth(unit.seconds, unit.bytes), this, memory});
  store_->add_bytes(-unit.bytes);
  for (const int call : unit.calls) {
    const auto node = kept_.extract(call);
    if (node.empty()) continue;
    for (auto& [other, kept] : kept_) {
      for (TensorState& input : kept.inputs) {
        for (const at::Tensor& tensor : node.mapped().result.tensors) {
          input.note_content_in(tensor);
        }
      }
    }
  }
}

void Recording::note_read(py::handle value) {
  const std::vector<at::Tensor> tensors = tensors_in(value);
  refuse_pending(tensors);
  for (const at::Tensor& tensor : tensors) {
    const auto owner = owner_.find(memory_of(tensor));
    if (owner == owner_.end()) continue;
    if (Kept* read = find(owner->second)) read->read = true;
  }
}

void Recording::end() {
  owner_.clear();
  const bool open = !pending_.empty();
  pending_.clear();
  if (open) throw ReplayMismatch("an overwritten tensor was not written");
}

void Recording::clear() {
  kept_.clear();
  while (!units_.empty()) drop(units_.begin()->first);
  owner_.clear();
  pending_.clear();
}

bool Recording::holds(const at::Tensor& tensor) const {
  return tensor.has_storage() && is_known(memory_of(tensor));
}

}  // namespace aimetpp::python
