#include "finding.h"

#include <algorithm>

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

}  // namespace

void localize_class(const float* map, double threshold, const Geometry& geometry, Regions& regions,
                    Finding& finding) noexcept {
  finding.localized = true;
  finding.peak = find_maximum(map, geometry.width, geometry.height);
  finding.peak_at = geometry.to_image({finding.peak.x + 0.5 + geometry.left, finding.peak.y + 0.5 + geometry.top});
  if (!(finding.peak.value > static_cast<float>(threshold))) return;
  for (const Region& region : regions.find(map, geometry.width, geometry.height, static_cast<float>(threshold))) {
    if (region.area < kMinArea) continue;
    ++finding.boxes_found;
    insert_sorted(finding.boxes, box_of(region, region.peak - threshold, geometry));
  }
  const double strongest = finding.boxes.empty() ? 1 : finding.boxes.front().score;
  for (msloc_box& box : finding.boxes) box.score = finding.score * (box.score / strongest);
}

}  // namespace msloc
