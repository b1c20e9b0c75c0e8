#include "regions.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "highest.h"

namespace msloc {
namespace {

constexpr int kFar = std::numeric_limits<int>::max();
constexpr Region kNothing{kFar, kFar, 0, 0, 0, -std::numeric_limits<float>::infinity()};

Region union_of(const Region& a, const Region& b) noexcept {
  return {std::min(a.left, b.left),     std::min(a.top, b.top), std::max(a.right, b.right),
          std::max(a.bottom, b.bottom), a.area + b.area,        std::max(a.peak, b.peak)};
}

/// 1 where a pixel exceeds the threshold, 0 elsewhere.
void mark(const float* row, int width, float threshold, std::uint8_t* above) noexcept {
  for (int x = 0; x < width; ++x) above[x] = row[x] > threshold ? 1 : 0;
}

}  // namespace

Regions::Regions(Size largest) : above_(static_cast<std::size_t>(largest.width)) {
  const auto across = static_cast<std::size_t>(largest.width) / 2 + 1;
  const auto down = static_cast<std::size_t>(largest.height) / 2 + 1;
  runs_.reserve(across);
  before_.reserve(across);
  // Of the 2 x 2 pixels of a cell all touch each other, so at most one of them begins a region.
  parent_.reserve(across * down);
  regions_.reserve(across * down);
}

void Regions::begin(int width, float threshold) noexcept {
  width_ = width;
  threshold_ = threshold;
  row_ = 0;
  runs_.clear();
  parent_.clear();
  regions_.clear();
}

void Regions::add(const float* row, int y) noexcept {
  std::swap(before_, runs_);
  runs_.clear();
  if (y > row_ + 1) before_.clear();
  row_ = y;
  mark(row, width_, threshold_, above_.data());
  std::size_t touching = 0;
  Run run{};
  while ((run.start = find(1, run.stop)) < width_) {
    run.stop = find(0, run.start);
    run.region = region_of(run, touching);
    const int length = run.stop - run.start;
    Region& region = regions_[static_cast<std::size_t>(run.region)];
    region = union_of(region, {run.start, y, run.stop, y + 1, length, highest(row + run.start, length)});
    runs_.push_back(run);
  }
}

/// The next pixel that is or is not above the threshold; the row's end where none is.
int Regions::find(std::uint8_t above, int from) const noexcept {
  const std::uint8_t* pixels = above_.data();
  const void* found = std::memchr(pixels + from, above, static_cast<std::size_t>(width_ - from));
  return found == nullptr ? width_ : static_cast<int>(static_cast<const std::uint8_t*>(found) - pixels);
}

/// The region of a run: that of the runs above that touch it, merged, or a new one. `touching` is the first of these
/// runs, or where to look for it.
int Regions::region_of(const Run& run, std::size_t& touching) noexcept {
  int region = -1;
  while (touching < before_.size() && before_[touching].stop < run.start) ++touching;
  for (std::size_t i = touching; i < before_.size() && before_[i].start <= run.stop; ++i)
    region = region < 0 ? root(before_[i].region) : merge(region, root(before_[i].region));
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

/// Merges two roots; the earlier one stays.
int Regions::merge(int first, int second) noexcept {
  const auto [keep, gone] = std::minmax(first, second);
  if (keep == gone) return keep;
  Region& kept = regions_[static_cast<std::size_t>(keep)];
  kept = union_of(kept, regions_[static_cast<std::size_t>(gone)]);
  parent_[static_cast<std::size_t>(gone)] = keep;
  return keep;
}

const std::vector<Region>& Regions::finish() noexcept {
  std::size_t kept = 0;
  for (std::size_t i = 0; i < regions_.size(); ++i)
    if (parent_[i] == static_cast<int>(i)) regions_[kept++] = regions_[i];
  regions_.resize(kept);
  return regions_;
}

}  // namespace msloc
