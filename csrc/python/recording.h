// SPDX-License-Identifier: BSD-3-Clause
// What the calls of a model's forward gave, kept so that a later forward with
// the same batch computes only what other quantizers change. Private to
// python/.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/csrc/utils/pybind.h>

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <stdexcept>
#include <tuple>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "python/stamp.h"
#include "python/tensor_state.h"
#include "python/value_tree.h"

namespace aimetpp::python {

// The forward takes another course than the one recorded, and has been given
// tensors from behind the point where it is: it must be run again, computing
// everything.
class ReplayMismatch : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

class Recording;

// The memory of all recordings, within a budget. What saves least time for its
// bytes goes first.
class ActivationStore {
 public:
  // `left_out`: names of the children of modules that hold quantizers.
  ActivationStore(std::int64_t budget, py::frozenset left_out)
      : budget_(budget), left_out_(std::move(left_out)) {}
  [[nodiscard]] std::int64_t budget() const { return budget_; }
  [[nodiscard]] std::int64_t bytes() const { return bytes_; }
  [[nodiscard]] std::int64_t peak_bytes() const { return peak_; }
  // How often something was not kept, or dropped, for lack of room.
  [[nodiscard]] std::int64_t num_refused() const { return refused_; }

 private:
  friend class Recording;
  using Memory = const c10::StorageImpl*;
  using Rank = std::tuple<double, Recording*, Memory>;  // seconds per byte

  // Makes room for so many bytes more, dropping what is worth less; false
  // where that does not suffice.
  bool make_room(std::int64_t bytes, double seconds_per_byte);
  void add_bytes(std::int64_t bytes);

  std::int64_t budget_;
  std::int64_t bytes_ = 0;
  std::int64_t peak_ = 0;
  std::int64_t refused_ = 0;
  py::frozenset left_out_;
  std::set<Rank> ranks_;
  std::unordered_set<int> compared_;  // calls that gave what was kept of them
};

// One batch. A call is told by its index in OpGraph::calls.
//
// A call gives again what it gave where its quantizers are the same, its module
// is in the same state, and its inputs are what they were: the same memory,
// untouched since, or the same bytes. That the graph sees nothing changed
// upstream is only why it is worth looking. The first time that a call could
// give its result again it computes, and both are compared, so that a module
// with state out of sight is noticed without running anything twice.
//
// Ops that overwrite their input: the memory then holds the last result only.
// What an earlier call left there is given, with its successor's values already
// in it, where the successor and all that read it in between give what they
// gave, and so look at no values (`pending_`); otherwise it is computed.
class Recording {
 public:
  // `inputs`: the model's, held and counted as long as the recording lives.
  Recording(std::shared_ptr<ActivationStore> store, int num_calls,
            const std::vector<at::Tensor>& inputs);
  ~Recording();
  Recording(const Recording&) = delete;
  Recording& operator=(const Recording&) = delete;

  // Drops what the calls gave.
  void forget(const std::vector<int>& calls);
  // A forward begins: calls in `changed` compute. With `keep_changed` their
  // results take the place of those that are kept, else these stay for the next
  // time; what other calls compute is kept in any case.
  void begin(const std::vector<int>& changed, bool keep_changed);
  // One call: its result, kept or by `compute()`. `module`: whose call it is,
  // None for a functional op, which has no state. Throws ReplayMismatch.
  py::object call(int index, const py::tuple& args, const py::dict& kwargs,
                  const py::object& compute, const py::object& module);
  // Something else than a call reads tensors. Throws ReplayMismatch.
  void note_read(py::handle value);
  // As above, and may write into them unseen from then on.
  void note_exposed(py::handle value);
  // The forward is over. Throws ReplayMismatch.
  void end();

  void clear();
  // Whether the tensor shows memory that is kept.
  [[nodiscard]] bool holds(const at::Tensor& tensor) const;
  // Since begin: calls whose results were there; whether one of them, computed
  // beside it, gave another one; calls that were given other numbers than last
  // time, or other tensors though nothing upstream had changed.
  [[nodiscard]] int num_replayed() const { return replayed_; }
  [[nodiscard]] bool differs() const { return differs_; }
  [[nodiscard]] int num_strays() const { return strays_; }
  // Whether the inputs may have been written.
  [[nodiscard]] bool inputs_written() const;

 private:
  friend class ActivationStore;
  using Memory = ActivationStore::Memory;

  struct Kept {
    py::object plain;  // of the arguments
    std::vector<TensorState> inputs;
    ValueTree result;
    std::vector<std::int64_t> versions;  // of the result's tensors
    std::uint64_t state = 0;             // of the module
    int passes = -1;                     // the input that it returned as it was
    int overwrites = -1;                 // the input that it wrote over
    int overwritten_by = -1;             // the call that wrote over the result
    std::set<int> readers;  // other calls that read the result before that
    bool read = false;      // by something else than a call
  };
  // Memory that is kept, and the calls whose results are in it.
  struct Unit {
    std::int64_t bytes = 0;
    double seconds = 0;
    std::vector<int> calls;
  };

  Kept* find(int index);
  bool has_same_input(int index, const Kept& kept, int input,
                      const at::Tensor& tensor);
  bool has_same_inputs(int index, const Kept& kept, const ValueTree& arguments);
  void note_plain(int index, const py::object& plain);
  bool is_stray(const Kept& kept, const ValueTree& arguments);
  bool is_intact(const Kept& kept);
  bool is_available(const Kept& kept);
  void note_reader(int index, const at::Tensor& tensor);
  py::object replay(int index, Kept* kept, const ValueTree& arguments);
  // Whether computing the call now shows if it still gives what is kept.
  bool is_comparable(int index, Kept* kept);
  void compare(int index, const Kept* kept,
               const std::optional<ValueTree>& result);
  [[nodiscard]] bool keeps(int index) const {
    return keeps_changed_ || !changed_[index];
  }
  void refuse_pending(const std::vector<at::Tensor>& tensors) const;
  // Notes who has read what; the input that the call wrote over, or -1.
  int note_inputs(int index, const std::vector<at::Tensor>& tensors,
                  const std::vector<std::int64_t>& versions,
                  const std::optional<ValueTree>& result, bool keeps);
  void keep(int index, const ValueTree& arguments,
            const std::vector<std::int64_t>& versions, ValueTree result,
            const ModuleState& state, int overwritten, double seconds);
  // Whether a result can be given again: it is memory of its own, or that of
  // the overwritten input.
  bool is_keepable(Kept* kept, const ValueTree& arguments,
                   const ModuleState& state);
  void add_to_unit(int index, Memory memory, std::int64_t bytes,
                   double seconds);
  void drop(Memory memory);
  [[nodiscard]] bool is_known(Memory memory) const;

  std::shared_ptr<ActivationStore> store_;
  std::vector<at::Tensor> inputs_;
  std::vector<std::int64_t> input_versions_;
  std::int64_t input_bytes_ = 0;
  std::map<int, Kept> kept_;
  std::unordered_map<int, py::object> plain_;  // arguments of the last calls
  std::unordered_map<Memory, Unit> units_;
  // Of the forward that runs.
  std::vector<bool> changed_;
  bool keeps_changed_ = false;
  bool differs_ = false;
  bool inputs_exposed_ = false;
  int replayed_ = 0;
  int strays_ = 0;
  std::unordered_map<Memory, int> owner_;    // whose result is there now
  std::unordered_map<Memory, int> pending_;  // the call that must replay next
  // Hashes of what calls left in memory that was written over until them.
  std::unordered_map<int, std::uint64_t> expected_;
};

}  // namespace aimetpp::python
