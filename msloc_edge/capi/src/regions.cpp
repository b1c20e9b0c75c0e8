#include "regions.h"

#include <algorithm>
#include <limits>

namespace msloc {
namespace {

constexpr int kFar = std::numeric_limits<int>::max();
constexpr Region kNothing{kFar, kFar, 0, 0, 0, std::numeric_limits<float>::lowest()};

/// The highest of `count` values. Lanes side by side, so that the compiler takes one vector instruction for all.
float highest(const float* values, int count) noexcept {
  constexpr int kLanes = 16;
  float best[kLanes];
  std::fill_n(best, kLanes, values[0]);
  int i = 0;
  for (; i + kLanes <= count; i += kLanes)
    for (int lane = 0; lane < kLanes; ++lane) best[lane] = std::max(best[lane], values[i + lane]);
  for (; i < count; ++i) best[0] = std::max(best[0], values[i]);
  return *std::max_element(best, best + kLanes);
}

}  // namespace

Maximum find_maximum(const float* map, int width, int height) noexcept {
  Maximum best{0, 0, map[0]};
  for (int y = 0; y < height; ++y) {
    const float* row = map + y * width;
    const float value = highest(row, width);
    if (value > best.value) best = {static_cast<int>(std::find(row, row + width, value) - row), y, value};
  }
  return best;
}

Regions::Regions(int max_width, int max_height) {
  const auto across = static_cast<std::size_t>(max_width) / 2 + 1;
  const auto down = static_cast<std::size_t>(max_height) / 2 + 1;
  above_.reserve(across);
  current_.reserve(across);
  // Of the 2 x 2 pixels of a cell all touch each other, so at most one of them begins a region.
  parent_.reserve(across * down);
  regions_.reserve(across * down);
}

const std::vector<Region>& Regions::find(const float* map, int width, int height, float threshold) noexcept {
  above_.clear();
  parent_.clear();
  regions_.clear();
  for (int y = 0; y < height; ++y) {
    current_.clear();
    const float* row = map + y * width;
    if (highest(row, width) > threshold) scan_row(row, y, width, threshold);
    std::swap(above_, current_);
  }
  collect_roots();
  return regions_;
}

void Regions::scan_row(const float* row, int y, int width, float threshold) noexcept {
  std::size_t above = 0;
  for (int x = 0; x < width; ++x) {
    if (!(row[x] > threshold)) continue;
    Run run{x, x, 0};
    float peak = row[x];
    for (; x < width && row[x] > threshold; ++x) peak = std::max(peak, row[x]);
    run.end = x;
    run.region = region_of(run, above);
    Region& region = regions_[static_cast<std::size_t>(run.region)];
    region = {std::min(region.left, run.begin), std::min(region.top, y),           std::max(region.right, run.end),
              std::max(region.bottom, y + 1),   region.area + run.end - run.begin, std::max(region.peak, peak)};
    current_.push_back(run);
  }
}

/// The region of a run: that of the runs above that touch it, joined, or a new one. `above` is the first run that may.
int Regions::region_of(const Run& run, std::size_t& above) noexcept {
  int region = -1;
  while (above < above_.size() && above_[above].end < run.begin) ++above;
  for (std::size_t i = above; i < above_.size() && above_[i].begin <= run.end; ++i)
    region = region < 0 ? root(above_[i].region) : join(region, root(above_[i].region));
  if (region >= 0) return region;
  parent_.push_back(static_cast<int>(parent_.size()));
  regions_.push_back(kNothing);
  return parent_.back();
}

int Regions::root(int region) noexcept {
  while (parent_[static_cast<std::size_t>(region)] != region) {
    int& parent = parent_[static_cast<std::size_t>(region)];
    parent = parent_[static_cast<std::size_t>(parent)];
    region = parent;
  }
  return region;
}

/// Joins two roots; the earlier one stays.
int Regions::join(int first, int second) noexcept {
  const auto [keep, gone] = std::minmax(first, second);
  if (keep == gone) return keep;
  Region& a = regions_[static_cast<std::size_t>(keep)];
  const Region& b = regions_[static_cast<std::size_t>(gone)];
  a = {std::min(a.left, b.left),     std::min(a.top, b.top), std::max(a.right, b.right),
       std::max(a.bottom, b.bottom), a.area + b.area,        std::max(a.peak, b.peak)};
  parent_[static_cast<std::size_t>(gone)] = keep;
  return keep;
}

void Regions::collect_roots() noexcept {
  std::size_t kept = 0;
  for (std::size_t i = 0; i < regions_.size(); ++i)
    if (parent_[i] == static_cast<int>(i)) regions_[kept++] = regions_[i];
  regions_.resize(kept);
}

}  // namespace msloc
