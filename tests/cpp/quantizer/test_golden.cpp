// SPDX-License-Identifier: BSD-3-Clause
// Ranges and encodings against those of aimet-torch on the same data:
// tests/golden/encodings.json, written by benchmarks/parity/ranges.py.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "quantizer/encoding.h"
#include "quantizer/statistics.h"

namespace aimetpp::quantizer {
namespace {

using nlohmann::json;

json read_golden() {
  const std::string path =
      std::string(AIMETPP_TEST_DIR) + "/../golden/encodings.json";
  std::ifstream file(path);
  EXPECT_TRUE(file) << "cannot read " << path;
  return json::parse(file);
}

// `values` of benchmarks/parity/ranges.py, number by number.
std::vector<float> make_values(const json& batch) {
  std::size_t count = 1;
  for (const json& size : batch["shape"]) count *= size.get<std::size_t>();
  auto state = batch["seed"].get<std::uint32_t>();
  const auto uniform = [&state] {
    state = state * 1664525U + 1013904223U;
    return state / 4294967296.0;
  };
  const auto kind = batch["kind"].get<std::string>();
  std::vector<float> values;
  for (std::size_t i = 0; i < count; ++i) {
    double number = 0;
    if (kind == "bell") {
      for (int term = 0; term < 4; ++term) number += uniform();
      number -= 2;
    } else if (kind == "uniform") {
      number = uniform();
    }
    values.push_back(static_cast<float>(number * batch["scale"].get<double>() +
                                        batch["shift"].get<double>()));
  }
  if (!batch.contains("set")) return values;
  for (const json& entry : batch["set"]) {
    const float value = entry[1].is_string()
                            ? std::stof(entry[1].get<std::string>())
                            : entry[1].get<float>();
    values[entry[0].get<std::size_t>()] = value;
  }
  return values;
}

Scheme scheme_named(const std::string& name) {
  if (name == "min_max") return Scheme::min_max;
  if (name == "tf_enhanced") return Scheme::tf_enhanced;
  if (name == "mse") return Scheme::mse;
  EXPECT_EQ(name, "percentile");
  return Scheme::percentile;
}

Statistics collect(const json& golden_case, Scheme scheme) {
  const int num_channels = golden_case["num_channels"].get<int>();
  Statistics statistics = Statistics::for_scheme(num_channels, scheme);
  for (const json& batch : golden_case["batches"]) {
    const std::vector<float> values = make_values(batch);
    statistics.update(values.data(), 1,
                      static_cast<std::int64_t>(values.size()) / num_channels);
  }
  return statistics;
}

std::string describe(const json& golden_case, const json& result,
                     std::size_t channel) {
  return golden_case["name"].get<std::string>() + ", " +
         result["scheme"].get<std::string>() + " " +
         std::to_string(result["percentile"].get<double>()) + ", " +
         std::to_string(result["bitwidth"].get<int>()) + " bits, " +
         (result["symmetric"].get<bool>() ? "symmetric" : "asymmetric") +
         ", channel " + std::to_string(channel);
}

Symmetry symmetry_of(const json& result) {
  return result["symmetric"].get<bool>() ? Symmetry::symmetric
                                         : Symmetry::asymmetric;
}

// Calls check(statistics, result, range, channel) for every golden result of a
// scheme.
template <typename Check>
int for_each_result(const std::string& scheme_name, const Check& check) {
  int checked = 0;
  const json golden = read_golden();
  const Scheme scheme = scheme_named(scheme_name);
  for (const json& golden_case : golden["cases"]) {
    const Statistics statistics = collect(golden_case, scheme);
    for (const json& result : golden_case["results"]) {
      if (result["scheme"] != scheme_name) continue;
      const std::vector<Range> ranges =
          ranges_from_statistics(statistics, scheme, result["bitwidth"],
                                 symmetry_of(result), result["percentile"]);
      for (std::size_t channel = 0; channel < ranges.size(); ++channel) {
        SCOPED_TRACE(describe(golden_case, result, channel));
        check(statistics, result, ranges[channel], channel);
        ++checked;
      }
    }
  }
  return checked;
}

Range golden_range(const json& result, std::size_t channel) {
  return {result["min"][channel], result["max"][channel]};
}

TEST(Golden, MinMaxIsEqualToTheLastBit) {
  const int checked =
      for_each_result("min_max", [](const Statistics&, const json& result,
                                    Range range, std::size_t channel) {
        EXPECT_EQ(range.min, golden_range(result, channel).min);
        EXPECT_EQ(range.max, golden_range(result, channel).max);
      });
  EXPECT_GT(checked, 150);
}

TEST(Golden, EncodingsOfGoldenRangesAreEqualToTheLastBit) {
  int checked = 0;
  const json golden = read_golden();
  for (const json& golden_case : golden["cases"]) {
    for (const json& result : golden_case["results"]) {
      for (std::size_t channel = 0; channel < result["min"].size(); ++channel) {
        SCOPED_TRACE(describe(golden_case, result, channel));
        const Encoding encoding = encoding_of_range(
            golden_range(result, channel), result["bitwidth"].get<int>(),
            symmetry_of(result));
        EXPECT_EQ(encoding.scale, result["scale"][channel].get<double>());
        EXPECT_EQ(static_cast<double>(encoding.offset),
                  result["offset"][channel].get<double>());
        EXPECT_EQ(encoding.min, result["grid_min"][channel].get<double>());
        EXPECT_EQ(encoding.max, result["grid_max"][channel].get<double>());
        ++checked;
      }
    }
  }
  EXPECT_GT(checked, 1000);
}

TEST(Golden, TfEnhancedIsEqualToTheLastBit) {
  const int checked =
      for_each_result("tf_enhanced", [](const Statistics&, const json& result,
                                        Range range, std::size_t channel) {
        EXPECT_EQ(range.min, golden_range(result, channel).min);
        EXPECT_EQ(range.max, golden_range(result, channel).max);
      });
  EXPECT_GT(checked, 150);
}

// The squared error of a range over a histogram, the slow way and in double.
double squared_error(const Histogram& histogram, Range range, int bitwidth,
                     Symmetry symmetry) {
  const Encoding encoding = encoding_of_range(range, bitwidth, symmetry);
  const double width =
      (double{histogram.hi} - double{histogram.lo}) / histogram.num_bins();
  double sum = 0;
  for (int bin = 0; bin < histogram.num_bins(); ++bin) {
    const double x = double{histogram.lo} + (bin + 0.5) * width;
    const double clipped = std::clamp(x, encoding.min, encoding.max);
    const double rounded =
        std::nearbyint(clipped / encoding.scale) * encoding.scale;
    sum += histogram.counts[static_cast<std::size_t>(bin)] * (rounded - x) *
           (rounded - x);
  }
  return sum;
}

// Candidates of nearly equal error may change places, since aimet-torch sums
// in float32: then the error of the range taken must be as small.
TEST(Golden, MseIsEqualOrAsGood) {
  int equal = 0;
  const int checked = for_each_result(
      "mse", [&equal](const Statistics& statistics, const json& result,
                      Range range, std::size_t channel) {
        const Range golden = golden_range(result, channel);
        if (range == golden) {
          ++equal;
          return;
        }
        const Histogram histogram =
            statistics.histogram(static_cast<int>(channel));
        const int bitwidth = result["bitwidth"];
        const Symmetry symmetry = symmetry_of(result);
        EXPECT_LE(
            squared_error(histogram, range, bitwidth, symmetry),
            squared_error(histogram, golden, bitwidth, symmetry) * (1 + 1e-4));
      });
  EXPECT_GT(checked, 150);
  EXPECT_GE(equal, checked - 5);
}

TEST(Golden, Percentile100IsEqualUpToRounding) {
  const int checked =
      for_each_result("percentile", [](const Statistics&, const json& result,
                                       Range range, std::size_t channel) {
        if (result["percentile"] != 100.0) return;
        // aimet-torch has its extra rule for three steps in min-max only.
        if (result["symmetric"] && result["bitwidth"] == 2) return;
        const Range golden = golden_range(result, channel);
        EXPECT_FLOAT_EQ(static_cast<float>(range.min),
                        static_cast<float>(golden.min));
        EXPECT_FLOAT_EQ(static_cast<float>(range.max),
                        static_cast<float>(golden.max));
      });
  EXPECT_GT(checked, 600);
}

// aimet-torch cuts at the left edge of the bin that a percentile falls in, and
// so drops that whole bin at the upper end; aimetpp keeps it at both ends.
TEST(Golden, PercentileKeepsOneBinMoreAtTheUpperEnd) {
  int one_more = 0;
  const int checked =
      for_each_result("percentile", [&one_more](const Statistics& statistics,
                                                const json& result, Range range,
                                                std::size_t channel) {
        if (result["percentile"] == 100.0 || result["symmetric"]) return;
        const Range golden = golden_range(result, channel);
        EXPECT_FLOAT_EQ(static_cast<float>(range.min),
                        static_cast<float>(golden.min));
        const Histogram histogram =
            statistics.histogram(static_cast<int>(channel));
        const double width = (double{histogram.hi} - double{histogram.lo}) /
                             histogram.num_bins();
        EXPECT_GE(range.max, golden.max);
        EXPECT_LE(range.max, golden.max * (1 + 3e-7) + width * 1.001);
        if (range.max > golden.max) ++one_more;
      });
  EXPECT_GT(checked, 600);
  EXPECT_GT(one_more, 100);
}

TEST(Golden, HistogramCountsAreEqual) {
  int checked = 0;
  const json golden = read_golden();
  for (const json& golden_case : golden["cases"]) {
    const json& expected = golden_case["histogram"];
    if (expected.is_null()) continue;
    SCOPED_TRACE(golden_case["name"].get<std::string>());
    const Statistics statistics = collect(golden_case, Scheme::tf_enhanced);
    const Histogram histogram = statistics.histogram(0);
    EXPECT_FLOAT_EQ(histogram.lo, expected["lo"].get<float>());
    EXPECT_FLOAT_EQ(histogram.hi, expected["hi"].get<float>());
    EXPECT_EQ(histogram.counts, expected["counts"].get<std::vector<double>>());
    ++checked;
  }
  EXPECT_GT(checked, 8);
}

}  // namespace
}  // namespace aimetpp::quantizer
