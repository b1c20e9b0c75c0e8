// The regions of a map that exceed a threshold: 8-connected components.
#pragma once

#include <vector>

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

struct Maximum {
  int x;
  int y;
  float value;
};

/// The highest value of a map [height, width], the first in reading order.
Maximum find_maximum(const float* map, int width, int height) noexcept;

/// Finds regions by joining runs of pixels row by row; working memory for the largest map is made once.
class Regions {
 public:
  Regions(int max_width, int max_height);

  /// The regions where map [height, width] > threshold, in the reading order of their first pixels. The vector is this
  /// object's own and lives until the next call.
  const std::vector<Region>& find(const float* map, int width, int height, float threshold) noexcept;

 private:
  struct Run {
    int begin;
    int end;
    int region;
  };

  int root(int region) noexcept;
  int join(int first, int second) noexcept;
  void scan_row(const float* row, int y, int width, float threshold) noexcept;
  int region_of(const Run& run, std::size_t& above) noexcept;
  void collect_roots() noexcept;

  std::vector<Run> above_;
  std::vector<Run> current_;
  std::vector<int> parent_;
  std::vector<Region> regions_;
};

}  // namespace msloc
