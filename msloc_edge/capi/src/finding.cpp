#include "finding.h"

#include <algorithm>
#include <limits>

#include "highest.h"

namespace msloc {
namespace {

/// A region in pixels of the image, with its peak for a score.
msloc_box box_of(const Region& region, const Geometry& geometry) noexcept {
  const Point low = geometry.to_image_clipped(
      {static_cast<double>(region.left + geometry.left), static_cast<double>(region.top + geometry.top)});
  const Point high = geometry.to_image_clipped(
      {static_cast<double>(region.right + geometry.left), static_cast<double>(region.bottom + geometry.top)});
  return {low.x, low.y, high.x - low.x, high.y - low.y, static_cast<double>(region.peak)};
}

double rise_of(const Region& region, double threshold) noexcept { return static_cast<double>(region.peak) - threshold; }

/// The highest rise of the regions of an area; 0 where there is none.
double highest_rise_of(const std::vector<Region>& regions, double threshold, double min_area) noexcept {
  double highest = 0;
  for (const Region& region : regions)
    if (region.area >= min_area) highest = std::max(highest, rise_of(region, threshold));
  return highest;
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

/// The row that may be the highest.
int most_promising(const Map& map) noexcept {
  int best = 0;
  for (int y = 1; y < map.height(); ++y)
    if (map.bound(y) > map.bound(best)) best = y;
  return best;
}

/// The highest pixel of row y, if it is higher than a peak, or as high and before it.
Maximum higher_in(const float* row, int width, int y, const Maximum& peak) noexcept {
  const float top = highest(row, width);
  if (!(top > peak.value || (top == peak.value && y < peak.y))) return peak;
  return {static_cast<int>(std::find(row, row + width, top) - row), y, top};
}

/// Finds the highest pixel, of equal ones the first in reading order, and the regions. Rows whose bounds are too low
/// for both are never made; NaN is not too low.
Maximum look_through(Map& map, float threshold, Regions& regions) noexcept {
  const int width = map.width();
  const int first = most_promising(map);
  Maximum peak = higher_in(map.row(first), width, first, {0, 0, -std::numeric_limits<float>::infinity()});
  regions.begin(width, threshold);
  for (int y = 0; y < map.height(); ++y) {
    const float bound = map.bound(y);
    const bool may_hold_peak = !(bound < peak.value);
    const bool may_exceed = !(bound <= threshold);
    if (!may_hold_peak && !may_exceed) continue;
    const float* row = map.row(y);
    if (may_hold_peak) peak = higher_in(row, width, y, peak);
    if (may_exceed) regions.add(row, y);
  }
  return peak;
}

}  // namespace

void fill_finding(const Maximum& peak, const std::vector<Region>& regions, double threshold, const RegionRule& rule,
                  const Geometry& geometry, Finding& finding) noexcept {
  finding.localized = true;
  finding.peak = peak;
  finding.peak_at = geometry.to_image({finding.peak.x + 0.5 + geometry.left, finding.peak.y + 0.5 + geometry.top});
  const double highest_rise = highest_rise_of(regions, threshold, rule.min_area);
  for (const Region& region : regions) {
    if (region.area < rule.min_area || rise_of(region, threshold) < rule.min_share * highest_rise) continue;
    ++finding.boxes_found;
    insert_sorted(finding.boxes, box_of(region, geometry));
  }
  for (msloc_box& box : finding.boxes) box.score = finding.score * ((box.score - threshold) / highest_rise);
}

void localize_class(Map& map, double threshold, const RegionRule& rule, const Geometry& geometry, Regions& regions,
                    Finding& finding) noexcept {
  const Maximum peak = look_through(map, static_cast<float>(threshold), regions);
  fill_finding(peak, regions.finish(), threshold, rule, geometry, finding);
}

}  // namespace msloc
