// SPDX-License-Identifier: BSD-3-Clause
// What tests of the CUDA kernels share: tensors where a kernel may look for
// them, and comparisons to the last bit.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <type_traits>
#include <vector>

#include "cuda/emulation/emulation.h"
#include "kernels/cpu/storage.h"
#include "kernels/fake_quant.h"

namespace aimetpp::kernels::testing {

using emulation::Order;

// Tests that run in every order in which blocks and threads may take turns.
class InAnyOrder : public ::testing::TestWithParam<Order> {
 protected:
  InAnyOrder() { emulation::set_order(GetParam()); }
  ~InAnyOrder() override { emulation::set_order(Order::ascending); }
};

inline std::string name_of(const ::testing::TestParamInfo<Order>& info) {
  switch (info.param) {
    case Order::ascending:
      return "ascending";
    case Order::descending:
      return "descending";
    case Order::shuffled:
      return "shuffled";
  }
  return "";
}

#define AIMETPP_IN_ANY_ORDER(name)                                         \
  class name : public InAnyOrder {};                                       \
  INSTANTIATE_TEST_SUITE_P(Orders, name,                                   \
                           ::testing::Values(emulation::Order::ascending,  \
                                             emulation::Order::descending, \
                                             emulation::Order::shuffled),  \
                           aimetpp::kernels::testing::name_of)

// run(storage, Stored{}) for every way to store elements.
template <typename Run>
void for_all_storages(const Run& run) {
  run(Storage::float32, float{});
  run(Storage::float64, double{});
  run(Storage::float16, cpu::Half{});
  run(Storage::bfloat16, cpu::BFloat16{});
}

inline std::string describe(const ChannelLayout& layout) {
  return "layout " + std::to_string(layout.outer) + " " +
         std::to_string(layout.channels) + " " + std::to_string(layout.inner);
}

// Sizes around packs, blocks of threads and partial sums; none at all; one
// channel, few, and more than a block has threads.
inline const std::vector<ChannelLayout>& layouts() {
  static const std::vector<ChannelLayout> all = {
      {1, 1, 1},    {1, 1, 3},   {1, 1, 8},   {1, 1, 255},  {1, 1, 4096},
      {1, 1, 9001}, {1, 5, 33},  {3, 4, 8},   {3, 4, 9},    {2, 3, 4104},
      {2, 3, 5001}, {90, 3, 64}, {500, 3, 2}, {7, 5, 1},    {300, 9, 1},
      {133, 32, 1}, {3, 270, 1}, {1, 40, 3},  {129, 40, 1}, {0, 5, 1},
      {0, 1, 0}};
  return all;
}

// Exactly so many elements, `shift` elements from where packs begin.
template <typename Stored>
class Memory {
 public:
  explicit Memory(std::size_t count, std::size_t shift = 0)
      : shift_(shift), elements_(shift + count) {}

  [[nodiscard]] Stored* data() { return elements_.data() + shift_; }
  [[nodiscard]] std::size_t size() const { return elements_.size() - shift_; }
  [[nodiscard]] Stored& operator[](std::size_t i) { return data()[i]; }

 private:
  std::size_t shift_;
  std::vector<Stored> elements_;
};

// Elements to be written, between others that must stay as they are.
template <typename Stored>
class Output {
 public:
  explicit Output(std::size_t count, std::size_t shift = 0)
      : before_(kAround + shift), elements_(before_ + count + kAround) {
    std::memset(static_cast<void*>(elements_.data()), kByte,
                elements_.size() * sizeof(Stored));
  }

  [[nodiscard]] Stored* data() { return elements_.data() + before_; }
  [[nodiscard]] std::vector<Stored> values() const {
    const auto first = elements_.begin() + static_cast<std::ptrdiff_t>(before_);
    return {first, elements_.end() - kAround};
  }
  [[nodiscard]] bool is_alone_written() const {
    const auto is_untouched = [](const Stored& element) {
      std::array<unsigned char, sizeof(Stored)> bytes;
      std::memcpy(bytes.data(), &element, sizeof(Stored));
      return std::all_of(bytes.begin(), bytes.end(),
                         [](unsigned char byte) { return byte == kByte; });
    };
    return std::all_of(elements_.begin(),
                       elements_.begin() + static_cast<std::ptrdiff_t>(before_),
                       is_untouched) &&
           std::all_of(elements_.end() - kAround, elements_.end(),
                       is_untouched);
  }

 private:
  static constexpr unsigned char kByte = 0xcd;
  static constexpr std::ptrdiff_t kAround = 16;  // whole packs
  std::size_t before_;
  std::vector<Stored> elements_;
};

inline double as_double(double value) { return value; }
inline double as_double(cpu::Half value) { return cpu::to_float(value); }
inline double as_double(cpu::BFloat16 value) { return cpu::to_float(value); }

// The same bits; a NaN is one whatever its payload.
template <typename Stored>
bool same_number(const Stored& a, const Stored& b) {
  return std::memcmp(&a, &b, sizeof(Stored)) == 0 ||
         (std::isnan(as_double(a)) && std::isnan(as_double(b)));
}

template <typename Stored>
::testing::AssertionResult same_numbers(const std::vector<Stored>& got,
                                        const std::vector<Stored>& expected) {
  if (got.size() != expected.size()) {
    return ::testing::AssertionFailure()
           << got.size() << " elements, expected " << expected.size();
  }
  for (std::size_t i = 0; i < got.size(); ++i) {
    if (!same_number(got[i], expected[i])) {
      return ::testing::AssertionFailure()
             << "element " << i << " is " << as_double(got[i]) << ", expected "
             << as_double(expected[i]);
    }
  }
  return ::testing::AssertionSuccess();
}

// About a third of them beyond [-1, 1.5], some at ties of a step of 1/32; every
// 37th is special where `special`.
template <typename Stored>
void fill(Memory<Stored>& memory, std::uint32_t seed, bool special) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  constexpr std::array<float, 9> kSpecial = {
      0.0f,
      -0.0f,
      kInfinity,
      -kInfinity,
      std::numeric_limits<float>::quiet_NaN(),
      1e-42f,
      -1e-42f,
      3e38f,
      -7e4f};
  std::mt19937 random(seed);
  std::uniform_real_distribution<float> value(-2.0f, 2.5f);
  for (std::size_t i = 0; i < memory.size(); ++i) {
    float x = value(random);
    if (i % 5 == 0) x = std::nearbyint(x * 64) / 64;
    if (special && i % 37 == 5) x = kSpecial[i / 37 % kSpecial.size()];
    memory[i] = cpu::store<Stored>(x);
  }
}

// A call with the ranges of its channels, as float or as double.
struct Ranges {
  explicit Ranges(std::int64_t channels, bool in_double = false)
      : in_double_(in_double) {
    for (std::int64_t c = 0; c < channels; ++c) {
      min_.push_back(-1.0f - 0.01f * static_cast<float>(c % 100));
      max_.push_back(1.5f + 0.02f * static_cast<float>(c % 70));
    }
    min_in_double_.assign(min_.begin(), min_.end());
    max_in_double_.assign(max_.begin(), max_.end());
  }

  [[nodiscard]] QuantCall call(const ChannelLayout& layout,
                               const std::array<std::int64_t, 2>& grid,
                               bool symmetric, Storage storage) const {
    QuantCall call;
    call.storage = storage;
    call.range_storage = in_double_ ? Storage::float64 : Storage::float32;
    call.symmetric = symmetric;
    call.layout = layout;
    call.min = in_double_ ? static_cast<const void*>(min_in_double_.data())
                          : min_.data();
    call.max = in_double_ ? static_cast<const void*>(max_in_double_.data())
                          : max_.data();
    call.grid = grid.data();
    return call;
  }

 private:
  bool in_double_;
  std::vector<float> min_, max_;
  std::vector<double> min_in_double_, max_in_double_;
};

}  // namespace aimetpp::kernels::testing
