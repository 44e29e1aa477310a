// SPDX-License-Identifier: BSD-3-Clause
#include "python/block_allocator.h"

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <unordered_map>

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#include <sys/mman.h>
#define AIMETPP_MAPS_BLOCKS 1
#else
#define AIMETPP_MAPS_BLOCKS 0
#endif

namespace aimetpp::python {
namespace {

constexpr std::size_t kLeastBlock = std::size_t{1} << 16;
constexpr std::size_t kPage = std::size_t{1} << 12;

#if AIMETPP_MAPS_BLOCKS
void* map(std::size_t bytes) {
#ifdef MAP_POPULATE
  constexpr int kFlags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE;
#else
  constexpr int kFlags = MAP_PRIVATE | MAP_ANON;
#endif
  void* block = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, kFlags, -1, 0);
  return block == MAP_FAILED ? nullptr : block;
}

// Where the system has no room for one mapping more, the addresses stay taken.
void unmap(void* block, std::size_t bytes) {
  if (munmap(block, bytes) != 0) madvise(block, bytes, MADV_DONTNEED);
}
#else
void* map(std::size_t) { return nullptr; }
void unmap(void*, std::size_t) {}
#endif

// The blocks, of any thread.
class Blocks {
 public:
  void* take(std::size_t bytes) {
    bytes = (bytes + kPage - 1) / kPage * kPage;
    const std::lock_guard lock(mutex_);
    auto found = free_.lower_bound(bytes);
    void* block = nullptr;
    if (found != free_.end() && found->first <= bytes + bytes / 8) {
      block = found->second;
      bytes = found->first;
      free_bytes_ -= bytes;
      free_.erase(found);
    } else {
      const std::size_t limit = std::max(peak_, used_bytes_ + bytes);
      while (used_bytes_ + free_bytes_ + bytes > limit) {
        release(used_bytes_ + free_bytes_ + bytes - limit);
      }
      block = map(bytes);
      if (block == nullptr) return nullptr;
    }
    used_.emplace(block, bytes);
    used_bytes_ += bytes;
    peak_ = std::max(peak_, used_bytes_);
    return block;
  }

  // False for memory that is no block.
  bool give_back(void* block) {
    const std::lock_guard lock(mutex_);
    const auto found = used_.find(block);
    if (found == used_.end()) return false;
    const std::size_t bytes = found->second;
    used_.erase(found);
    used_bytes_ -= bytes;
    if (keeps_) {
      free_.emplace(bytes, block);
      free_bytes_ += bytes;
    } else {
      unmap(block, bytes);
    }
    return true;
  }

  // Whether freed blocks are kept to be used again.
  void set_keeps(bool keeps) {
    const std::lock_guard lock(mutex_);
    keeps_ = keeps;
    peak_ = used_bytes_;
    while (!keeps && !free_.empty()) release(free_bytes_);
  }

  std::mutex& mutex() { return mutex_; }

 private:
  // One free block: the smallest of so many bytes, or the largest.
  void release(std::size_t bytes) {
    auto found = free_.lower_bound(bytes);
    if (found == free_.end()) --found;
    unmap(found->second, found->first);
    free_bytes_ -= found->first;
    free_.erase(found);
  }

  std::mutex mutex_;
  std::unordered_map<void*, std::size_t> used_;
  std::multimap<std::size_t, void*> free_;
  std::size_t used_bytes_ = 0;
  std::size_t free_bytes_ = 0;
  std::size_t peak_ = 0;  // of used_bytes_
  bool keeps_ = false;
};

// Outlives all tensors.
Blocks& blocks() {
  static auto* const all = new Blocks();
  return *all;
}

class BlockAllocator final : public c10::Allocator {
 public:
  explicit BlockAllocator(c10::Allocator* small) { small_ = small; }

  c10::DataPtr allocate(std::size_t bytes) override {
    void* memory = bytes < kLeastBlock ? nullptr : blocks().take(bytes);
    if (memory == nullptr) memory = small_->raw_allocate(bytes);
    return {memory, memory, &release, at::Device(at::kCPU)};
  }
  [[nodiscard]] c10::DeleterFnPtr raw_deleter() const override {
    return &release;
  }
  void copy_data(void* to, const void* from, std::size_t bytes) const override {
    default_copy_data(to, from, bytes);
  }
  [[nodiscard]] c10::Allocator* small() const { return small_; }

 private:
  static void release(void* memory) {
    const bool may_be_block =
        reinterpret_cast<std::uintptr_t>(memory) % kPage == 0;
    if (may_be_block && blocks().give_back(memory)) return;
    small_->raw_deallocate(memory);
  }

  inline static c10::Allocator* small_ = nullptr;  // of what is no block
};

// Never destroyed: tensors may.
BlockAllocator& allocator() {
  static auto* const only = [] {
#if AIMETPP_MAPS_BLOCKS
    pthread_atfork([] { blocks().mutex().lock(); },
                   [] { blocks().mutex().unlock(); },
                   [] { blocks().mutex().unlock(); });
#endif
    return new BlockAllocator(c10::GetCPUAllocator());
  }();
  return *only;
}

int num_users = 0;  // under the GIL

}  // namespace

BlockAllocation::BlockAllocation() {
  if (num_users++ > 0) return;
  c10::Allocator* const others = c10::GetCPUAllocator();
  if (AIMETPP_MAPS_BLOCKS == 0 || others->raw_deleter() == nullptr ||
      others != allocator().small()) {
    return;
  }
  blocks().set_keeps(true);
  c10::SetCPUAllocator(&allocator());
}

BlockAllocation::~BlockAllocation() {
  if (--num_users > 0) return;
  if (c10::GetCPUAllocator() == &allocator()) {
    c10::SetCPUAllocator(allocator().small());
  }
  blocks().set_keeps(false);
}

void bind_block_allocator(py::module_& m) {
  py::class_<BlockAllocation>(m, "BlockAllocation").def(py::init());
}

}  // namespace aimetpp::python
