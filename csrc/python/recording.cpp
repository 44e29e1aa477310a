// SPDX-License-Identifier: BSD-3-Clause
#include "python/recording.h"

#include <ATen/ops/equal.h>

#include <algorithm>
#include <chrono>
#include <utility>

namespace aimetpp::python {
namespace {

bool same_bits(const at::Tensor& a, const at::Tensor& b) {
  if (a.scalar_type() != b.scalar_type() || a.sizes() != b.sizes() ||
      a.strides() != b.strides() || a.device() != b.device()) {
    return false;
  }
  if (a.is_cpu()) return content_of(a) == content_of(b);
  const auto bytes = [](const at::Tensor& tensor) {
    return tensor.contiguous().reshape({-1}).view(at::kByte);
  };
  return at::equal(bytes(a), bytes(b));
}

}  // namespace

void Recording::forget(const std::vector<int>& calls) {
  std::unordered_set<Memory> stale;
  for (const int call : calls) {
    const Kept* kept = find(call);
    if (kept == nullptr) continue;
    if (kept->passes < 0) stale.insert(memory_of(kept->result.tensors.front()));
    kept_.erase(call);
  }
  // What else is in their memory has been written over.
  for (const Memory memory : stale) {
    for (const int call : units_.at(memory).calls) kept_.erase(call);
    drop(memory);
  }
}

void Recording::begin(const std::vector<int>& changed, bool keep_changed) {
  if (keep_changed) forget(changed);
  changed_.assign(changed_.size(), false);
  for (const int call : changed) changed_[call] = true;
  keeps_changed_ = keep_changed;
  differs_ = false;
  replayed_ = 0;
  strays_ = 0;
  owner_.clear();
  pending_.clear();
  expected_.clear();
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
    if (overwritten) return false;
    // Versions count all writes only where nobody else has the memory. On other
    // devices than the CPU they have to do.
    const bool ours = is_known(memory_of(tensor)) || !tensor.is_cpu();
    return (ours && before.is_untouched(tensor)) || before.is_copy(tensor);
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

// Numbers that a model gives to a call come from its batch, as a rule.
void Recording::note_plain(int index, const py::object& plain) {
  py::object& before = plain_[index];
  if (before && !same_plain(before, plain)) ++strays_;
  before = plain;
}

// Inputs that differ for certain, and not for a reason of the recording's own.
bool Recording::is_stray(const Kept& kept, const ValueTree& arguments) {
  if (arguments.tensors.size() != kept.inputs.size()) return true;
  for (std::size_t i = 0; i < kept.inputs.size(); ++i) {
    const at::Tensor& tensor = arguments.tensors[i];
    if (static_cast<int>(i) != kept.overwrites &&
        !pending_.contains(memory_of(tensor)) && kept.inputs[i].has_content() &&
        !kept.inputs[i].is_copy(tensor)) {
      return true;
    }
  }
  return false;
}

// Whether what the call left is still there, or only calls that are kept wrote
// over it.
bool Recording::is_intact(const Kept& kept) {
  const auto& tensors = kept.result.tensors;
  if (versions_of(tensors) == kept.versions) return true;
  const Kept* next =
      kept.overwritten_by < 0 ? nullptr : find(kept.overwritten_by);
  return next != nullptr && tensors.size() == 1 &&
         next->result.tensors.front().is_same(tensors.front()) &&
         next->inputs[next->overwrites].version() == kept.versions.front() &&
         is_intact(*next);
}

// Of a call that is intact: whether what wrote over it will give its own
// result, and nothing looks at its values before.
bool Recording::is_available(const Kept& kept) {
  if (versions_of(kept.result.tensors) == kept.versions) return true;
  return !kept.read && !changed_[kept.overwritten_by] &&
         std::ranges::all_of(kept.readers,
                             [&](int call) {
                               return !changed_[call] && find(call) != nullptr;
                             }) &&
         is_available(*find(kept.overwritten_by));
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

bool Recording::is_comparable(int index, Kept* kept) {
  if (kept->passes >= 0 || kept->overwrites >= 0 ||
      !store_->compared_.insert(index).second) {
    return false;
  }
  if (versions_of(kept->result.tensors) == kept->versions) return true;
  int last = index;
  const Kept* final = kept;
  while (final->overwritten_by >= 0 &&
         versions_of(final->result.tensors) != final->versions) {
    last = final->overwritten_by;
    final = find(last);
  }
  const auto content = content_of(final->result.tensors.front());
  if (content) expected_[last] = *content;
  return content.has_value();
}

void Recording::compare(int index, const Kept* kept,
                        const std::optional<ValueTree>& result) {
  if (kept != nullptr && versions_of(kept->result.tensors) == kept->versions) {
    ++replayed_;
    if (!result || !same_plain(result->plain, kept->result.plain) ||
        !std::ranges::equal(result->tensors, kept->result.tensors, same_bits)) {
      differs_ = true;
    }
  }
  const auto expected = expected_.find(index);
  if (expected == expected_.end()) return;
  if (!result || result->tensors.size() != 1 ||
      content_of(result->tensors.front()) != expected->second) {
    differs_ = true;
  }
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
                           const std::optional<ValueTree>& result, bool keeps) {
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
    if (static_cast<int>(i) == overwritten && keeps &&
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
                           const py::dict& kwargs, const py::object& compute,
                           const py::object& module) {
  const py::tuple given = py::make_tuple(args, kwargs);
  const auto arguments = ValueTree::of(given);
  std::optional<ModuleState> state;
  const auto state_now = [&] {
    if (!state) {
      state = module.is_none() ? ModuleState()
                               : module_state(module, store_->left_out_);
    }
    return state->stamp;
  };
  if (arguments) note_plain(index, arguments->plain);
  Kept* kept =
      changed_[index] || !arguments || differs_ ? nullptr : find(index);
  bool same = false;
  if (kept != nullptr) {
    same = has_same_inputs(index, *kept, *arguments);
    if (!same && is_stray(*kept, *arguments)) ++strays_;
    same = same && kept->state == state_now() && is_intact(*kept);
  }
  bool compares = false;
  if (same && is_available(*kept)) {
    // With inputs whose values are ahead of the forward nothing can compute.
    const bool ahead =
        std::ranges::any_of(arguments->tensors, [&](const at::Tensor& tensor) {
          return pending_.contains(memory_of(tensor));
        });
    compares = !ahead && is_comparable(index, kept);
    if (!compares) return replay(index, kept, *arguments);
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
  // What is intact may be available again with other settings.
  const bool keeps_it =
      arguments && !differs_ && keeps(index) && (compares || !same);
  if (keeps_it) state_now();
  const std::vector<std::int64_t> versions = versions_of(tensors);
  const auto start = std::chrono::steady_clock::now();
  py::object computed = compute();
  const std::chrono::duration<double> time =
      std::chrono::steady_clock::now() - start;
  auto result = ValueTree::of(computed);
  compare(index, compares ? find(index) : nullptr, result);
  const int overwritten =
      note_inputs(index, tensors, versions, result, keeps_it);
  if (keeps_it && result && !result->tensors.empty()) {
    keep(index, *arguments, versions, std::move(*result), *state, overwritten,
         time.count());
  }
  return computed;
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

void Recording::note_exposed(py::handle value) {
  note_read(value);
  for (const at::Tensor& tensor : tensors_in(value)) {
    const Memory memory = memory_of(tensor);
    if (units_.contains(memory)) {
      drop(memory);
    } else if (is_known(memory)) {
      inputs_exposed_ = true;
    }
  }
}

bool Recording::inputs_written() const {
  return inputs_exposed_ || versions_of(inputs_) != input_versions_;
}

void Recording::end() {
  owner_.clear();
  const bool open = !pending_.empty();
  pending_.clear();
  if (open) throw ReplayMismatch("an overwritten tensor was not written");
}

bool Recording::holds(const at::Tensor& tensor) const {
  return tensor.has_storage() && is_known(memory_of(tensor));
}

}  // namespace aimetpp::python
