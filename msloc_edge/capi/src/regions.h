// The regions of a map that exceed a threshold: 8-connected components.
#pragma once

#include <cstdint>
#include <vector>

#include "geometry.h"

namespace msloc {

/// Columns left .. right, rows top .. bottom, the last ones not included.
struct Region {
  int left;
  int top;
  int right;
  int bottom;
  int area;    // pixels
  float peak;  // highest value
};

/// A pixel of a map.
struct Maximum {
  int x;
  int y;
  float value;
};

/// The highest pixel of a map, of equal ones the first in reading order, and its regions, in that of their first
/// pixels.
struct Located {
  Maximum peak{};
  std::vector<Region> regions;
};

/// Finds regions by merging runs of pixels row by row; working memory for the largest map is made once.
class Regions {
 public:
  explicit Regions(Size largest);

  /// Begins a map of rows of `width` pixels: nothing found yet.
  void begin(int width, float threshold) noexcept;

  /// Adds the pixels of row y that exceed the threshold; NaN never does. Rows come in their order, and one that has no
  /// such pixel need not come.
  void add(const float* row, int y) noexcept;

  /// The regions, in the reading order of their first pixels. The vector is this object's own and lives until `begin`.
  const std::vector<Region>& finish() noexcept;

 private:
  struct Run {
    int start;
    int stop;
    int region;
  };

  [[nodiscard]] int find(std::uint8_t above, int from) const noexcept;
  int root(int region) noexcept;
  int merge(int first, int second) noexcept;
  int region_of(const Run& run, std::size_t& touching) noexcept;

  int width_ = 0;
  float threshold_ = 0;
  int row_ = 0;                      // the last one added
  std::vector<std::uint8_t> above_;  // for each of its pixels: 1 where it exceeds the threshold
  std::vector<Run> runs_;            // its runs
  std::vector<Run> before_;          // those of the row above it
  std::vector<int> parent_;
  std::vector<Region> regions_;
};

}  // namespace msloc
