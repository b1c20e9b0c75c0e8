// fuse_cams: M_k = sum_s w_{k,s} up(A_{k,s}), the localization map of one class, as msloc_edge/fusion.py.
#pragma once

#include <vector>

#include "bundle.h"
#include "engine.h"
#include "resample.h"

namespace msloc {

/// The weights of `up` for one bundle, made once. `run` may be called from several threads, each with its own scratch.
class Fuse {
 public:
  explicit Fuse(const Bundle& bundle);

  /// Floats of scratch that one `run` needs.
  [[nodiscard]] int scratch_size() const noexcept { return 2 * bundle_.input.width; }

  /// Writes M_k over a patch of the model's input to map [patch.height, patch.width], logit units.
  void run(const Engine& engine, int k, const Patch& patch, float* map, float* scratch) const noexcept;

 private:
  struct Upsampling {
    Axis rows;
    Axis columns;
  };

  const Bundle& bundle_;
  std::vector<Upsampling> stages_;
};

}  // namespace msloc
