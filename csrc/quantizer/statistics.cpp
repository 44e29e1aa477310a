// SPDX-License-Identifier: BSD-3-Clause
#include "quantizer/statistics.h"

#include <algorithm>
#include <utility>

#include "core/error.h"
#include "quantizer/bin_counting.h"
#include "quantizer/histogram_sum.h"

namespace aimetpp::quantizer {
namespace {

constexpr double kFormat = 3;  // first number of a serialized state

// Reads a serialized state number by number.
class Reader {
 public:
  explicit Reader(const std::vector<double>& state) : state_(state) {}

  double next() {
    if (position_ == state_.size()) fail("it ends too early");
    return state_[position_++];
  }
  float next_float() { return static_cast<float>(next()); }
  int next_int() {
    const double number = next();
    if (!(number >= 0 && number <= std::numeric_limits<int>::max()) ||
        number != static_cast<double>(static_cast<int>(number))) {
      fail("a size is not a whole number");
    }
    return static_cast<int>(number);
  }
  void expect_end() const {
    if (position_ != state_.size()) fail("it is too long");
  }
  [[nodiscard]] std::size_t left() const { return state_.size() - position_; }
  [[noreturn]] static void fail(const char* why) {
    raise_value_error(
        "statistics: the state must be what serialize() returned, but ", why);
  }

 private:
  const std::vector<double>& state_;
  std::size_t position_ = 0;
};

// 0 for "no values", or the number of filled bins, the range, and bin and count
// of each.
void write_histogram(const Histogram& histogram, std::vector<double>& state) {
  const auto filled = histogram.counts.size() -
                      static_cast<std::size_t>(std::count(
                          histogram.counts.begin(), histogram.counts.end(), 0));
  state.push_back(static_cast<double>(filled));
  if (filled == 0) return;
  for (const float end :
       {histogram.lo, histogram.hi, histogram.lowest, histogram.highest}) {
    state.push_back(double{end});
  }
  for (std::size_t bin = 0; bin < histogram.counts.size(); ++bin) {
    if (histogram.counts[bin] == 0) continue;
    state.push_back(static_cast<double>(bin));
    state.push_back(histogram.counts[bin]);
  }
}

Histogram read_histogram(Reader& reader, int num_bins) {
  Histogram histogram;
  const int filled = reader.next_int();
  if (filled == 0) return histogram;
  for (float* end :
       {&histogram.lo, &histogram.hi, &histogram.lowest, &histogram.highest}) {
    *end = reader.next_float();
  }
  if (!(histogram.lo <= histogram.hi)) Reader::fail("a histogram has no range");
  histogram.counts.assign(static_cast<std::size_t>(num_bins), 0.0);
  for (int i = 0; i < filled; ++i) {
    const int bin = reader.next_int();
    if (bin >= num_bins) Reader::fail("a histogram has no such bin");
    histogram.counts[static_cast<std::size_t>(bin)] = reader.next();
  }
  return histogram;
}

// A channel of a block, counted from the block's first, as one run of values.
const float* channel_values(const ValueBlock& block, std::int64_t channel,
                            std::vector<float>& workspace) {
  const auto& [data, outer, channels, inner, first_channel] = block;
  if (outer == 1 || channels == 1) return data + channel * inner;
  workspace.resize(static_cast<std::size_t>(outer * inner));
  for (std::int64_t row = 0; row < outer; ++row) {
    const float* segment = data + (row * channels + channel) * inner;
    std::copy(segment, segment + inner, workspace.begin() + row * inner);
  }
  return workspace.data();
}

// So many that another thread pays; `work`: elements to look at for each.
std::int64_t channels_per_thread(std::int64_t work) {
  return std::max<std::int64_t>(kGrain / work, 1);
}

}  // namespace

Statistics::Statistics(int num_channels, int num_bins, double max_growth)
    : num_bins_(num_bins), max_growth_(max_growth) {
  if (num_channels < 1) {
    raise_value_error("statistics: num_channels must be 1 or more, got ",
                      num_channels);
  }
  if (num_bins < 0 || num_bins > kMaxBins) {
    raise_value_error("statistics: num_bins must be between 0 and ", kMaxBins,
                      ", got ", num_bins);
  }
  if (!(max_growth >= 1)) {
    raise_value_error("statistics: max_growth must be 1 or more, got ",
                      max_growth);
  }
  const auto size = static_cast<std::size_t>(num_channels);
  const Extremes none;
  mins_.assign(size, none.min);
  maxs_.assign(size, none.max);
  if (num_bins > 0) histograms_.resize(size);
}

Statistics Statistics::for_scheme(int num_channels, Scheme scheme,
                                  int first_updates) {
  switch (scheme) {
    case Scheme::min_max:
      break;
    case Scheme::tf_enhanced: {
      Statistics limited(num_channels, 512, 3);
      limited.first_updates_left_ = first_updates > 1 ? first_updates : 0;
      return limited;
    }
    case Scheme::percentile:
    case Scheme::mse:
      return {num_channels, 2048, kUnlimitedGrowth};
  }
  return {num_channels, 0, kUnlimitedGrowth};
}

void Statistics::update(const float* data, std::int64_t outer,
                        std::int64_t inner, const ParallelFor& parallel_for) {
  if (outer < 0 || inner < 0) {
    raise_value_error("statistics: sizes must not be negative, got [", outer,
                      ", ", num_channels(), ", ", inner, "]");
  }
  if (outer == 0 || inner == 0) return;
  if (num_channels() == 1) {
    inner *= outer;
    outer = 1;
    if (update_in_one_pass(data, inner, parallel_for)) {
      limit_growth();
      return;
    }
  }
  const ValueBlock all{data, outer, num_channels(), inner};
  Room room{channel_extremes(data, outer, num_channels(), inner, parallel_for),
            std::vector<char>(mins_.size(), 0)};
  for (std::size_t channel = 0; channel < mins_.size(); ++channel) {
    include(channel, room.extremes[channel]);
  }
  if (num_bins_ > 0) update_histograms(room, all, parallel_for);
  limit_growth();
}

void Statistics::update(const ValueBlocks& blocks,
                        const ParallelFor& parallel_for) {
  Room room{std::vector<Extremes>(mins_.size()),
            std::vector<char>(mins_.size(), 0)};
  bool has_nan = false;
  std::int64_t count = 0;
  blocks([&](const ValueBlock& block) {
    count += block.numel();
    const auto found = channel_extremes_without_nan(
        block.data, block.outer, block.channels, block.inner, parallel_for);
    has_nan = has_nan || !found;
    if (has_nan) return;
    const auto first = static_cast<std::size_t>(block.first_channel);
    for (std::size_t i = 0; i < found->size(); ++i) {
      room.extremes[first + i].include((*found)[i]);
    }
  });
  if (count == 0) return;
  if (has_nan) {
    NanCount nan;
    blocks([&nan](const ValueBlock& block) {
      nan.include(block.data, block.numel());
    });
    nan.raise();
  }
  for (std::size_t channel = 0; channel < mins_.size(); ++channel) {
    include(channel, room.extremes[channel]);
  }
  if (num_bins_ > 0) {
    blocks([&](const ValueBlock& block) {
      update_histograms(room, block, parallel_for);
    });
  }
  limit_growth();
}

double Statistics::growth() const {
  return first_updates_left_ > 0 ? kUnlimitedGrowth : max_growth_;
}

// After the last of the updates that make the first range.
void Statistics::limit_growth() {
  if (first_updates_left_ == 0) return;
  --first_updates_left_;
  if (first_updates_left_ > 0) return;
  for (PackedHistogram& packed : histograms_) {
    if (packed.empty()) continue;
    Histogram histogram = packed.unpacked(num_bins_);
    limit_range(histogram, max_growth_);
    packed = PackedHistogram(histogram);
  }
}

void Statistics::merge(const Statistics& other) {
  if (num_channels() != other.num_channels() || num_bins_ != other.num_bins_ ||
      max_growth_ != other.max_growth_) {
    raise_value_error("statistics: to be merged, both must have ",
                      num_channels(), " channels of ", num_bins_,
                      " bins that grow ", max_growth_, " times, got ",
                      other.num_channels(), " of ", other.num_bins_,
                      " that grow ", other.max_growth_, " times");
  }
  for (std::size_t channel = 0; channel < mins_.size(); ++channel) {
    include(channel, {other.mins_[channel], other.maxs_[channel]});
    if (num_bins_ == 0) continue;
    Histogram sum = histograms_[channel].unpacked(num_bins_);
    add_histogram(sum, other.histograms_[channel].unpacked(num_bins_),
                  max_growth_);
    histograms_[channel] = PackedHistogram(sum);
  }
}

void Statistics::include(std::size_t channel, const Extremes& extremes) {
  mins_[channel] = std::min(mins_[channel], extremes.min);
  maxs_[channel] = std::max(maxs_[channel], extremes.max);
}

// For one channel that has a histogram already: false, and nothing changed,
// where that needs another range, or a value is not finite.
bool Statistics::update_in_one_pass(const float* data, std::int64_t count,
                                    const ParallelFor& parallel_for) {
  if (num_bins_ == 0 || histograms_[0].empty()) return false;
  Histogram histogram = histograms_[0].unpacked(num_bins_);
  const CountedScan result =
      scan_and_count(histogram, data, count, parallel_for);
  Extremes extremes = result.scan.extremes;
  extremes.min += 0.0F;  // never -0
  extremes.max += 0.0F;
  if (!result.counted) {
    if (!result.scan.all_finite()) return false;
    make_room(histogram, extremes, num_bins_, growth());
    count_values(histogram, data, count, parallel_for);
  }
  include(0, extremes);
  histograms_[0] = PackedHistogram(histogram);
  return true;
}

void Statistics::update_histograms(Room& room, const ValueBlock& block,
                                   const ParallelFor& parallel_for) {
  // Used again for every channel, so that what is kept lies close together.
  struct Workspace {
    Histogram histogram;
    std::vector<float> values;
  };
  const std::int64_t count = block.outer * block.inner;
  const auto update_channel = [&](std::int64_t index, Workspace& workspace,
                                  const ParallelFor& threads) {
    const auto channel = static_cast<std::size_t>(block.first_channel + index);
    const Extremes& extremes = room.extremes[channel];
    Histogram& histogram = workspace.histogram;
    histograms_[channel].unpack_into(histogram, num_bins_);
    if (!extremes.empty() && room.made[channel] == 0) {
      make_room(histogram, extremes, num_bins_, growth());
      room.made[channel] = 1;
    }
    if (histogram.counts.empty()) return;  // infinities and no range yet
    const float* values = channel_values(block, index, workspace.values);
    count_values(histogram, values, count, threads);
    histograms_[channel] = PackedHistogram(histogram);
  };
  if (block.channels == 1) {
    Workspace workspace;
    update_channel(0, workspace, parallel_for);
    return;
  }
  parallel_for(block.channels, channels_per_thread(count + num_bins_),
               [&](std::int64_t begin, std::int64_t end) {
                 Workspace workspace;
                 for (std::int64_t index = begin; index < end; ++index) {
                   update_channel(index, workspace, serial_for);
                 }
               });
}

Histogram Statistics::histogram(int channel) const {
  return histograms_.at(static_cast<std::size_t>(channel)).unpacked(num_bins_);
}

std::size_t Statistics::bytes() const {
  std::size_t total = (mins_.capacity() + maxs_.capacity()) * sizeof(float) +
                      histograms_.capacity() * sizeof(PackedHistogram);
  for (const PackedHistogram& histogram : histograms_) {
    total += histogram.bytes();
  }
  return total;
}

bool Statistics::empty() const {
  for (std::size_t channel = 0; channel < mins_.size(); ++channel) {
    if (mins_[channel] <= maxs_[channel]) return false;
  }
  return true;
}

// Format, channels, bins, growth, first updates left; per channel min and max;
// per channel, where there are bins, its histogram.
std::vector<double> Statistics::serialize() const {
  std::vector<double> state = {kFormat, static_cast<double>(num_channels()),
                               static_cast<double>(num_bins_), max_growth_,
                               static_cast<double>(first_updates_left_)};
  for (std::size_t channel = 0; channel < mins_.size(); ++channel) {
    state.push_back(double{mins_[channel]});
    state.push_back(double{maxs_[channel]});
  }
  for (const PackedHistogram& histogram : histograms_) {
    write_histogram(histogram.unpacked(num_bins_), state);
  }
  return state;
}

Statistics Statistics::deserialize(const std::vector<double>& state) {
  Reader reader(state);
  if (reader.next() != kFormat) Reader::fail("its format is another one");
  const int num_channels = reader.next_int();
  const int num_bins = reader.next_int();
  const double max_growth = reader.next();
  const int first_updates_left = reader.next_int();
  if (static_cast<std::size_t>(num_channels) > reader.left() / 2) {
    Reader::fail("it ends too early");
  }
  Statistics statistics(num_channels, num_bins, max_growth);
  statistics.first_updates_left_ = first_updates_left;
  for (std::size_t channel = 0; channel < statistics.mins_.size(); ++channel) {
    statistics.mins_[channel] = reader.next_float();
    statistics.maxs_[channel] = reader.next_float();
  }
  for (PackedHistogram& histogram : statistics.histograms_) {
    histogram = PackedHistogram(read_histogram(reader, num_bins));
  }
  reader.expect_end();
  return statistics;
}

}  // namespace aimetpp::quantizer
