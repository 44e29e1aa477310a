// SPDX-License-Identifier: BSD-3-Clause
// Calibration statistics of torch tensors.
#pragma once

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/as_strided.h>
#include <ATen/ops/empty.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/error.h"
#include "ops/fake_quant_call.h"
#include "ops/parallel.h"
#include "ops/slabs.h"
#include "ops/strides.h"
#include "python/convert.h"
#include "python/tensor_state.h"
#include "quantizer/statistics.h"
#include "quantizer/weight_grid.h"

namespace aimetpp::python {

// A tensor of any floating dtype on any device; per channel along an axis. The
// values of a tensor on another device are copied to the CPU; what is not dense
// float32 becomes that a cacheful at a time.
inline void update_statistics(quantizer::Statistics& statistics,
                              const at::Tensor& tensor,
                              std::optional<std::int64_t> channel_axis) {
  const at::Tensor data = tensor.detach().to(at::kCPU);
  if (channel_axis && *channel_axis < 0) *channel_axis += data.dim();
  if (channel_axis && data.size(*channel_axis) != statistics.num_channels()) {
    raise_value_error("calibration: the tensor must have ",
                      statistics.num_channels(), " channels on axis ",
                      *channel_axis, ", got ", data.size(*channel_axis));
  }
  pybind11::gil_scoped_release release;
  if (data.scalar_type() == at::kFloat && data.is_non_overlapping_and_dense()) {
    // Any order of memory will do where every element is there once.
    const kernels::ChannelLayout layout = ops::layout_of(data, channel_axis);
    statistics.update(data.const_data_ptr<float>(), layout.outer, layout.inner,
                      ops::at_parallel_for);
    return;
  }
  const at::Tensor dense = ops::dense_like(data);
  const std::vector<ops::Slab> slabs = ops::slabs_of(
      dense.sizes(), dense.strides(), channel_axis, at::get_num_threads());
  if (slabs.empty()) return;
  // The first slab is the largest.
  const at::Tensor buffer =
      at::empty({slabs.front().layout.numel()}, at::kFloat);
  const quantizer::ValueBlocks blocks = [&](const auto& visit) {
    for (const ops::Slab& slab : slabs) {
      at::as_strided(buffer, slab.sizes, dense.strides())
          .copy_(ops::view_of(data, slab));
      const auto& [outer, channels, inner] = slab.layout;
      visit({buffer.const_data_ptr<float>(), outer, channels, inner,
             slab.first_channel});
    }
  };
  statistics.update(blocks, ops::at_parallel_for);
}

// (min, max), float32, each with one element per channel.
inline std::pair<at::Tensor, at::Tensor> ends_of(
    const std::vector<quantizer::Range>& ranges) {
  const auto size = static_cast<std::int64_t>(ranges.size());
  at::Tensor low = at::empty({size}, at::kFloat);
  at::Tensor high = at::empty({size}, at::kFloat);
  auto* lows = low.mutable_data_ptr<float>();
  auto* highs = high.mutable_data_ptr<float>();
  for (const quantizer::Range& range : ranges) {
    *lows++ = static_cast<float>(range.min);
    *highs++ = static_cast<float>(range.max);
  }
  return {low, high};
}

inline std::pair<at::Tensor, at::Tensor> ranges_from_statistics(
    const quantizer::Statistics& statistics, const std::string& scheme,
    int bitwidth, const std::string& symmetry, double percentile) {
  std::vector<quantizer::Range> ranges;
  {
    pybind11::gil_scoped_release release;
    ranges = quantizer::ranges_from_statistics(
        statistics, scheme_of(scheme), bitwidth, symmetry_of(symmetry),
        percentile, ops::at_parallel_for);
  }
  return ends_of(ranges);
}

inline std::pair<at::Tensor, at::Tensor> power_of_two_ranges(
    const quantizer::Statistics& statistics, int bitwidth,
    const std::string& symmetry) {
  return ends_of(quantizer::power_of_two_ranges(statistics, bitwidth,
                                                symmetry_of(symmetry)));
}

// The step of the grid on which each row of a matrix lies, 0 for none; see
// quantizer/weight_grid.h.
inline at::Tensor find_grid_steps(const at::Tensor& matrix, int bitwidth) {
  const at::Tensor data = matrix.detach().to(at::kCPU, at::kFloat).contiguous();
  std::vector<float> steps;
  {
    pybind11::gil_scoped_release release;
    steps = quantizer::find_grid_steps(data.const_data_ptr<float>(),
                                       data.size(0), data.size(1), bitwidth,
                                       ops::at_parallel_for);
  }
  at::Tensor result = at::empty({data.size(0)}, at::kFloat);
  std::copy(steps.begin(), steps.end(), result.mutable_data_ptr<float>());
  return result;
}

// Of a tensor's elements in row-major order, on any device.
inline std::uint64_t content_hash(const at::Tensor& tensor) {
  const at::Tensor data = tensor.detach().to(at::kCPU).contiguous();
  const pybind11::gil_scoped_release release;
  return hash_of(data);
}

// The numbers of serialize() as bytes, which are quick to hash and to pickle.
inline pybind11::bytes statistics_to_bytes(
    const quantizer::Statistics& statistics) {
  const std::vector<double> state = statistics.serialize();
  return {reinterpret_cast<const char*>(state.data()),
          state.size() * sizeof(double)};
}

inline quantizer::Statistics statistics_from_bytes(
    const pybind11::bytes& bytes) {
  const std::string_view view = bytes;
  std::vector<double> state(view.size() / sizeof(double));
  std::memcpy(state.data(), view.data(), state.size() * sizeof(double));
  return quantizer::Statistics::deserialize(state);
}

}  // namespace aimetpp::python
