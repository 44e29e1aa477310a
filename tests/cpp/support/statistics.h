// SPDX-License-Identifier: BSD-3-Clause
// Data, and errors, for tests of calibration statistics.
#pragma once

#include <gtest/gtest.h>

#include <limits>
#include <random>
#include <string>
#include <vector>

#include "core/error.h"
#include "quantizer/statistics.h"

namespace aimetpp::quantizer::testing {

inline constexpr float kInfinity = std::numeric_limits<float>::infinity();

inline std::vector<float> random_values(std::size_t count, unsigned seed = 1) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& value : values) value = normal(generator);
  return values;
}

template <typename Call>
std::string error_of(ErrorKind kind, const Call& call) {
  try {
    call();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), kind);
    return error.what();
  }
  ADD_FAILURE() << "nothing was thrown";
  return "";
}

inline constexpr auto kSchemes = {Scheme::min_max, Scheme::tf_enhanced,
                                  Scheme::percentile, Scheme::mse};

}  // namespace aimetpp::quantizer::testing
