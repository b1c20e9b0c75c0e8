// Window and letterbox in one pass, from stored pixels to the model's input.
#pragma once

#include <vector>

#include "film.h"
#include "geometry.h"
#include "pool.h"
#include "resample.h"

namespace msloc {

/// Equals Geometry.letterbox(frame.display()) of msloc_edge. Working memory depends on the model's input alone.
class Letterbox {
 public:
  /// Makes room for at most `workers` threads at once.
  Letterbox(Size input, int workers);

  /// output(y, x) [input.height, input.width] = area average or bilinear value of table[pixel], black beside the film.
  void run(const Film& film, const float* table, const Geometry& geometry, Pool& pool, float* output) noexcept;

 private:
  template <class Sample>
  void run_as(const Film& film, const float* table, const Geometry& geometry, Pool& pool, float* output) noexcept;

  Axis rows_;
  Axis columns_;
  std::vector<float> scratch_;
};

/// The look of a film within the input: whether it shows anything, and whether it seems to be a negative.
struct Look {
  bool constant;
  bool inverted;
};

/// Looks at a film within the input, as msloc_edge.imaging.preprocess.looks_inverted does.
Look look_at(const float* input, const Geometry& geometry) noexcept;

}  // namespace msloc
