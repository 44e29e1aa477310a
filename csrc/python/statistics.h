// SPDX-License-Identifier: BSD-3-Clause
// Calibration statistics of torch tensors.
#pragma once

#include <ATen/core/Tensor.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/error.h"
#include "python/convert.h"
#include "quantizer/statistics.h"

namespace aimetpp::python {

// A tensor of any dtype on any device; per channel along an axis.
inline void update_statistics(quantizer::Statistics& statistics,
                              const at::Tensor& tensor,
                              std::optional<std::int64_t> channel_axis) {
  const at::Tensor data = tensor.detach().to(at::kCPU, at::kFloat).contiguous();
  std::int64_t outer = 1;
  std::int64_t inner = data.numel();
  if (channel_axis) {
    if (data.size(*channel_axis) != statistics.num_channels()) {
      raise_value_error("calibration: the tensor must have ",
                        statistics.num_channels(), " channels on axis ",
                        *channel_axis, ", got ", data.size(*channel_axis));
    }
    inner = 1;
    for (std::int64_t axis = 0; axis < data.dim(); ++axis) {
      if (axis < *channel_axis) outer *= data.size(axis);
      if (axis > *channel_axis) inner *= data.size(axis);
    }
  }
  pybind11::gil_scoped_release release;
  statistics.update(data.const_data_ptr<float>(), outer, inner);
}

// (min, max) by channel.
inline std::vector<std::pair<double, double>> ranges_from_statistics(
    const quantizer::Statistics& statistics, const std::string& scheme,
    int bitwidth, const std::string& symmetry, double percentile) {
  std::vector<std::pair<double, double>> ranges;
  for (const quantizer::Range& range : quantizer::ranges_from_statistics(
           statistics, scheme_of(scheme), bitwidth, symmetry_of(symmetry),
           percentile)) {
    ranges.emplace_back(range.min, range.max);
  }
  return ranges;
}

}  // namespace aimetpp::python
