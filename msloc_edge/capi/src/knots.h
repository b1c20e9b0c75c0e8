// The knots of localization maps: there the stages are added, on a quarter of the pixels, and the sum is enlarged once.
//
// A stage's map is bilinear between the centres of its cells. Where each stage's cells are twice as large as those of
// the stage before, these centres and their middles lie on one lattice that begins at the map's corner, half a finest
// cell apart: msloc_edge/maps/fuse.py.
#pragma once

#include <vector>

#include "bundle.h"
#include "engine.h"

namespace msloc {

/// The sums of all stages at the knots. Memory is made once.
class Knots {
 public:
  /// Says whether the stages of a bundle have such a lattice.
  static bool suit(const Bundle& bundle) noexcept;

  /// Takes a bundle that they suit.
  explicit Knots(const Bundle& bundle);

  /// Knots, from the map's top-left corner to its bottom-right one.
  [[nodiscard]] static Size size(const Bundle& bundle) noexcept;

  /// M_k of the last film at the knots, logit units: [size.height, size.width]. It lives until the next call.
  const float* add_stages(const Engine& engine, int k) noexcept;

 private:
  const Bundle& bundle_;
  std::vector<std::vector<float>> totals_;  // of each stage and all coarser ones; nothing is coarser than the last
  std::vector<float> lines_;
};

}  // namespace msloc
