// SPDX-License-Identifier: BSD-3-Clause
#include "mixed/walk_search.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace aimetpp::mixed {
namespace {

struct Step {
  int index;
  double score;
};

class WalkSearch {
 public:
  WalkSearch(const Walk& walk, const WalkOptions& options)
      : walk_(walk),
        options_(options),
        count_(static_cast<int>(walk.costs.size())),
        left_(std::max(options.most, 0)) {}

  void run() {
    if (count_ == 0) return;
    if (options_.profile) {
      if (left_ < count_) {
        refine_boxes();
      } else {
        evaluate_all();
      }
    } else if (options_.algo == SearchAlgo::brute_force) {
      evaluate_in_order();
    } else {
      find_target();
    }
  }

 private:
  [[nodiscard]] double cost(int step) const {
    return step < 0 ? walk_.baseline_cost
                    : walk_.costs[static_cast<std::size_t>(step)];
  }
  [[nodiscard]] int in_order(int position) const {
    return options_.reverse ? count_ - 1 - position : position;
  }
  double score(int step) {
    --left_;
    return walk_.score(step);
  }

  void evaluate_all();
  void evaluate_in_order();
  void find_target();
  [[nodiscard]] static int halved(const Step& good, const Step& bad);
  [[nodiscard]] int interpolated(const Step& good, const Step& bad) const;
  void refine_boxes();
  [[nodiscard]] int middle_by_cost(int from, int to) const;
  [[nodiscard]] double area(const Step& from, const Step& to) const;

  const Walk& walk_;
  const WalkOptions& options_;
  int count_;
  int left_;  // steps that may still be evaluated
};

void WalkSearch::evaluate_all() {
  std::vector<int> steps(static_cast<std::size_t>(count_));
  std::iota(steps.begin(), steps.end(), 0);
  if (options_.reverse) std::reverse(steps.begin(), steps.end());
  if (walk_.announce) walk_.announce(steps);
  for (const int step : steps) score(step);
}

// Forwards up to the first that misses the target; in reverse, up to the first
// that meets it.
void WalkSearch::evaluate_in_order() {
  for (int position = 0; position < count_ && left_ > 0; ++position) {
    const bool meets = score(in_order(position)) >= options_.target;
    if (meets == options_.reverse) return;
  }
}

// Interpolation that did not halve what is left is followed by a halving, so
// that a curve with a cliff takes few evaluations too.
void WalkSearch::find_target() {
  if (left_ == 0) return;
  Step good{-1, walk_.baseline_score};
  Step bad{count_ - 1, score(count_ - 1)};
  if (bad.score >= options_.target) return;
  bool interpolate = options_.algo == SearchAlgo::interpolation;
  while (bad.index - good.index > 1 && left_ > 0) {
    const int width = bad.index - good.index;
    const int middle =
        interpolate ? interpolated(good, bad) : halved(good, bad);
    const Step found{middle, score(middle)};
    (found.score >= options_.target ? good : bad) = found;
    interpolate = options_.algo == SearchAlgo::interpolation &&
                  2 * (bad.index - good.index) <= width + 1;
  }
}

int WalkSearch::halved(const Step& good, const Step& bad) {
  return good.index + (bad.index - good.index) / 2;
}

// Where the target lies on the line from the step known to meet it to the one
// known to miss it.
int WalkSearch::interpolated(const Step& good, const Step& bad) const {
  const double share =
      (good.score - options_.target) / (good.score - bad.score);
  if (!std::isfinite(share)) return halved(good, bad);
  const int width = bad.index - good.index;
  return std::clamp(good.index + static_cast<int>(share * width),
                    good.index + 1, bad.index - 1);
}

void WalkSearch::refine_boxes() {
  if (left_ == 0) return;
  std::vector<Step> known = {{-1, walk_.baseline_score}};
  known.push_back({count_ - 1, score(count_ - 1)});
  while (left_ > 0) {
    double largest = 0;
    int inside = -1;  // of the largest box
    auto end = known.end();
    for (auto step = known.begin() + 1; step != known.end(); ++step) {
      const Step& from = *(step - 1);
      const double size = area(from, *step);
      if (size <= largest) continue;
      const int middle = middle_by_cost(from.index, step->index);
      if (middle < 0) continue;
      largest = size;
      inside = middle;
      end = step;
    }
    if (inside < 0) return;
    const Step found{inside, score(inside)};
    known.insert(end, found);
  }
}

// Strictly between the two; of equally near ones the first. -1 for none: steps
// that save nothing on `from` cannot be better than it.
int WalkSearch::middle_by_cost(int from, int to) const {
  const double middle = (cost(from) + cost(to)) / 2;
  int nearest = -1;
  for (int step = from + 1; step < to; ++step) {
    if (cost(step) == cost(from)) continue;
    if (nearest < 0 ||
        std::abs(cost(step) - middle) < std::abs(cost(nearest) - middle)) {
      nearest = step;
    }
  }
  return nearest;
}

// An infinite score makes an infinite box; of several the widest counts, since
// sizes of boxes are only compared.
double WalkSearch::area(const Step& from, const Step& to) const {
  const double width = std::abs(cost(from.index) - cost(to.index));
  const double height = std::abs(from.score - to.score);
  if (width == 0 || height == 0 || std::isnan(height)) return 0;
  constexpr double kAlmostInfinite = std::numeric_limits<double>::max() / 2;
  return std::isfinite(height) ? width * height : width * kAlmostInfinite;
}

}  // namespace

WalkOptions walk_options(const SearchOptions& options, double target) {
  WalkOptions walk;
  walk.algo = options.algo;
  walk.profile = !options.allowed_drop.has_value();
  walk.reverse = options.reverse;
  walk.target = target;
  walk.most = options.max_steps;
  return walk;
}

void search_walk(const Walk& walk, const WalkOptions& options) {
  WalkSearch(walk, options).run();
}

StepCounts count_steps(int count, const WalkOptions& options) {
  const int most = std::min(count, std::max(options.most, 0));
  if (most == 0) return {};
  if (options.profile) return {most < count ? 1 : count, most};
  if (options.algo == SearchAlgo::brute_force) return {1, most};
  int steps = 1;  // the last; then until one is left of `count`
  if (options.algo == SearchAlgo::binary) {
    for (int width = count; width > 1; width -= width / 2) ++steps;
  } else {  // a guess that takes off one in vain, then a halving
    for (int width = count; width > 1; width = width / 2) {
      steps += width == 2 ? 1 : 2;
    }
  }
  return {1, std::min(most, steps)};
}

}  // namespace aimetpp::mixed
