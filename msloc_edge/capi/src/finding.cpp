#include "finding.h"

#include <algorithm>
#include <limits>

#include "highest.h"

namespace msloc {
namespace {

msloc_box box_of(const Region& region, double rise, const Geometry& geometry) noexcept {
  const Point low = geometry.to_image_clipped(
      {static_cast<double>(region.left + geometry.left), static_cast<double>(region.top + geometry.top)});
  const Point high = geometry.to_image_clipped(
      {static_cast<double>(region.right + geometry.left), static_cast<double>(region.bottom + geometry.top)});
  return {low.x, low.y, high.x - low.x, high.y - low.y, rise};
}

/// Keeps `boxes` sorted by score, at most its capacity; of equals the earlier one goes first.
void insert_sorted(std::vector<msloc_box>& boxes, const msloc_box& box) noexcept {
  const auto weaker = [](const msloc_box& a, const msloc_box& b) { return a.score > b.score; };
  const auto at = std::upper_bound(boxes.begin(), boxes.end(), box, weaker);
  if (boxes.size() < boxes.capacity()) {
    boxes.insert(at, box);
  } else if (at != boxes.end()) {
    std::move_backward(at, boxes.end() - 1, boxes.end());
    *at = box;
  }
}

/// The highest value in the row that promises most: no map's peak is lower.
float promised(Map& map) noexcept {
  int best = 0;
  for (int y = 1; y < map.height(); ++y)
    if (map.bound(y) > map.bound(best)) best = y;
  return highest(map.row(best), map.width());
}

/// Finds the highest pixel, of equal ones the first in reading order, and the regions. Rows that by their bounds hold
/// neither are never made; NaN is no bound.
Maximum look_through(Map& map, float threshold, Regions& regions) noexcept {
  const int width = map.width();
  Maximum peak{0, 0, -std::numeric_limits<float>::infinity()};
  regions.begin(width, threshold);
  const float least = std::min(promised(map), threshold);
  for (int y = 0; y < map.height(); ++y) {
    const float bound = map.bound(y);
    if (bound < least) continue;
    const float* row = map.row(y);
    if (!(bound <= peak.value)) {
      const float top = highest(row, width);
      if (top > peak.value) peak = {static_cast<int>(std::find(row, row + width, top) - row), y, top};
    }
    if (!(bound <= threshold)) regions.add(row, y);
  }
  return peak;
}

}  // namespace

void localize_class(Map& map, double threshold, const Geometry& geometry, Regions& regions, Finding& finding) noexcept {
  finding.localized = true;
  finding.peak = look_through(map, static_cast<float>(threshold), regions);
  finding.peak_at = geometry.to_image({finding.peak.x + 0.5 + geometry.left, finding.peak.y + 0.5 + geometry.top});
  for (const Region& region : regions.finish()) {
    if (region.area < kMinArea) continue;
    ++finding.boxes_found;
    insert_sorted(finding.boxes, box_of(region, region.peak - threshold, geometry));
  }
  const double strongest = finding.boxes.empty() ? 1 : finding.boxes.front().score;
  for (msloc_box& box : finding.boxes) box.score = finding.score * (box.score / strongest);
}

}  // namespace msloc
