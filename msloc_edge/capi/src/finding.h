// From a localization map to a peak and boxes, in pixels of the stored image: msloc_edge/maps/boxes.py.
#pragma once

#include <vector>

#include "geometry.h"
#include "map.h"
#include "msloc_edge.h"
#include "profile.h"
#include "regions.h"

namespace msloc {

/// One class of one film.
struct Finding {
  double logit = 0;
  double score = 0;
  bool candidate = false;  // the film passes the gate, and the score reaches its threshold
  bool positive = false;   // a candidate with a box
  bool localized = false;
  Maximum peak{};  // x, y: within the film's area of the input
  Point peak_at{};
  int boxes_found = 0;
  std::vector<msloc_box> boxes;  // strongest first; its capacity is how many are kept
};

/// Fills peak and boxes of a finding whose score is known, from what was located over the film's area of the input. No
/// box beyond the capacity of `finding.boxes` is kept.
void fill_finding(const Maximum& peak, const std::vector<Region>& regions, double threshold, const RegionRule& rule,
                  const Geometry& geometry, Finding& finding) noexcept;

/// The same from a map over that area. NaN is passed over; a peak of -inf says that no pixel is a number.
void localize_class(Map& map, double threshold, const RegionRule& rule, const Geometry& geometry, Regions& regions,
                    Finding& finding) noexcept;

}  // namespace msloc
