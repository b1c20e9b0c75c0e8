// The bundle: the folder that training hands to every device (design of msloc_edge/bundle/bundle.py), opened and verified.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "geometry.h"

namespace msloc {

/// One stage's class-map grid, in cells.
using Stage = Size;

/// Absolute thresholds, one per class: on the calibrated probability, and on the map in logit units.
struct Profile {
  std::string name;
  std::vector<double> score;
  std::vector<double> map;
};

/// What PyTorch found of one class on the built-in film: peak (x, y, value), boxes (x, y, width, height).
struct Golden {
  double logit;
  std::array<double, 3> peak;
  std::vector<std::array<double, 4>> boxes;
};

/// K classes, S stages.
struct Bundle {
  std::string name;
  std::string version;
  std::string sha256;  // of manifest.json, which holds the hash of every other file
  std::vector<std::string> classes;
  Size input{};
  std::vector<Stage> stages;
  std::vector<float> relevance;  // [K, S], rows sum to one
  double temperature = 1;
  Profile profile;
  std::string golden_film;     // sha256 of the film that `golden` belongs to; empty where the bundle has none
  std::vector<Golden> golden;  // [K] or empty
  std::string model;           // the verified bytes of model.onnx

  [[nodiscard]] int class_count() const noexcept { return static_cast<int>(classes.size()); }
  [[nodiscard]] int stage_count() const noexcept { return static_cast<int>(stages.size()); }

  /// Opens a folder; an empty `profile` takes the default one.
  /// Throws Failure: MSLOC_BUNDLE_..., MSLOC_PROFILE_UNKNOWN.
  static Bundle open(const std::string& folder, const std::string& profile);
};

}  // namespace msloc
