// SPDX-License-Identifier: BSD-3-Clause
// Stretches of a Source or a Target as neighbours in memory: in place where
// they lie so, else by way of a buffer. Private to kernels/cpu.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/strided.h"

namespace aimetpp::kernels::cpu {

// visit(offset, stride, at, count): elements at..at + count of the stretch
// [begin, begin + n) lie `stride` apart from `offset` on.
template <typename Visit>
void for_runs(const Strides& where, std::int64_t begin, std::int64_t n,
              const Visit& visit) {
  std::array<std::int64_t, Strides::kMaxDims> index{};
  const int inner = where.dims - 1;
  std::int64_t rest = begin;
  for (int dim = inner; dim > 0; --dim) {
    index[static_cast<std::size_t>(dim)] = rest % where.sizes[dim];
    rest /= where.sizes[dim];
  }
  index[0] = rest;
  std::int64_t offset = where.offset_of(begin);
  for (std::int64_t at = 0; at < n;) {
    std::int64_t& position = index[static_cast<std::size_t>(inner)];
    const std::int64_t count = std::min(n - at, where.sizes[inner] - position);
    visit(offset, where.strides[inner], at, count);
    at += count;
    position += count;
    offset += count * where.strides[inner];
    // On to the next run.
    for (int dim = inner; dim > 0; --dim) {
      std::int64_t& here = index[static_cast<std::size_t>(dim)];
      if (here < where.sizes[dim]) break;
      offset += where.strides[dim - 1] - here * where.strides[dim];
      here = 0;
      ++index[static_cast<std::size_t>(dim - 1)];
    }
  }
}

template <typename Stored>
class SourceStretches {
 public:
  // `longest`: elements of the longest stretch.
  SourceStretches(const Source& source, std::int64_t longest)
      : data_(static_cast<const Stored*>(source.data)),
        where_(source.strides),
        buffer_(where_.in_order() ? 0 : static_cast<std::size_t>(longest)) {}

  // Valid until the next call.
  [[nodiscard]] const Stored* read(std::int64_t begin, std::int64_t n) {
    if (where_.in_order()) return data_ + begin;
    for_runs(where_, begin, n,
             [this](std::int64_t offset, std::int64_t stride, std::int64_t at,
                    std::int64_t count) {
               const Stored* from = data_ + offset;
               Stored* to = buffer_.data() + at;
               if (stride == 1) {
                 std::copy(from, from + count, to);
                 return;
               }
               for (std::int64_t i = 0; i < count; ++i)
                 to[i] = from[i * stride];
             });
    return buffer_.data();
  }

 private:
  const Stored* data_;
  Strides where_;
  std::vector<Stored> buffer_;
};

template <typename Stored>
class TargetStretches {
 public:
  TargetStretches(const Target& target, std::int64_t longest)
      : data_(static_cast<Stored*>(target.data)),
        where_(target.strides),
        buffer_(where_.in_order() ? 0 : static_cast<std::size_t>(longest)) {}

  // Where to write a stretch, before it is stored.
  [[nodiscard]] Stored* place(std::int64_t begin) {
    return where_.in_order() ? data_ + begin : buffer_.data();
  }

  void store(std::int64_t begin, std::int64_t n) {
    if (where_.in_order()) return;
    for_runs(where_, begin, n,
             [this](std::int64_t offset, std::int64_t stride, std::int64_t at,
                    std::int64_t count) {
               Stored* to = data_ + offset;
               const Stored* from = buffer_.data() + at;
               for (std::int64_t i = 0; i < count; ++i)
                 to[i * stride] = from[i];
             });
  }

 private:
  Stored* data_;
  Strides where_;
  std::vector<Stored> buffer_;
};

}  // namespace aimetpp::kernels::cpu
