// The bundle: the folder that training hands to every device (msloc_edge/bundle/bundle.py), opened and verified.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <vector>

#include "gate.h"
#include "geometry.h"
#include "profile.h"

namespace msloc {

/// One stage's class-map grid, in cells.
using Stage = Size;

/// PyTorch's result of one class on the built-in film: peak (x, y, value), boxes (x, y, width, height).
struct GoldenFinding {
  double logit;
  std::array<double, 3> peak;
  std::vector<std::array<double, 4>> boxes;
};

/// PyTorch's result on the built-in film.
struct Golden {
  std::string film;                     // sha256
  std::optional<double> abnormal;       // p_abnormal
  std::vector<GoldenFinding> findings;  // [K]
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
  std::optional<Abnormal> abnormal;
  std::optional<InputGate> input_gate;
  RegionRule regions;
  Profile profile;
  std::optional<Golden> golden;
  std::string model;  // the verified bytes of model.onnx

  [[nodiscard]] int class_count() const noexcept { return static_cast<int>(classes.size()); }
  [[nodiscard]] int stage_count() const noexcept { return static_cast<int>(stages.size()); }

  /// Opens a folder; an empty `profile` takes the default one.
  /// Throws Failure: MSLOC_BUNDLE_..., MSLOC_PROFILE_UNKNOWN.
  static Bundle open(const std::string& folder, const std::string& profile);
};

}  // namespace msloc
