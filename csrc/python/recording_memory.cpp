// SPDX-License-Identifier: BSD-3-Clause
// What is kept, and what goes to make room.
#include <algorithm>
#include <limits>
#include <utility>

#include "python/recording.h"

namespace aimetpp::python {
namespace {

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
      input_versions_(versions_of(inputs)),
      input_bytes_(memory_bytes(inputs)),
      changed_(num_calls) {
  store_->add_bytes(input_bytes_);
}

Recording::~Recording() {
  clear();
  store_->add_bytes(-input_bytes_);
}

bool Recording::is_known(Memory memory) const {
  if (units_.contains(memory)) return true;
  return std::ranges::any_of(inputs_, [&](const at::Tensor& tensor) {
    return memory_of(tensor) == memory;
  });
}

bool Recording::is_keepable(Kept* kept, const ValueTree& arguments,
                            const ModuleState& state) {
  const auto& results = kept->result.tensors;
  // A parameter that is returned as it is belongs to whoever writes into it.
  if (std::ranges::any_of(results, [&](const at::Tensor& result) {
        return std::ranges::count(state.memories, memory_of(result)) > 0;
      })) {
    return false;
  }
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
                     ValueTree result, const ModuleState& state,
                     int overwritten, double seconds) {
  if (const Kept* old = find(index); old != nullptr && old->passes < 0) {
    drop(memory_of(old->result.tensors.front()));
  }
  kept_.erase(index);
  Kept kept;
  kept.plain = arguments.plain;
  kept.state = state.stamp;
  kept.overwrites = overwritten;
  kept.versions = versions_of(result.tensors);
  kept.result = std::move(result);
  for (std::size_t i = 0; i < arguments.tensors.size(); ++i) {
    kept.inputs.emplace_back(arguments.tensors[i], versions[i]);
  }
  if (!is_keepable(&kept, arguments, state)) return;
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

void Recording::clear() {
  kept_.clear();
  while (!units_.empty()) drop(units_.begin()->first);
  owner_.clear();
  pending_.clear();
}

}  // namespace aimetpp::python
