#include "fuse.h"

#include <algorithm>

namespace msloc {

Fuse::Fuse(const Bundle& bundle) : bundle_(bundle) {
  for (const Stage& stage : bundle.stages) {
    Upsampling up{Axis(bundle.input.height), Axis(bundle.input.width)};
    up.rows.set_linear(stage.height, bundle.input.height);
    up.columns.set_linear(stage.width, bundle.input.width);
    stages_.push_back(std::move(up));
  }
}

void Fuse::run(const Engine& engine, int k, const Patch& patch, float* map, float* scratch) const noexcept {
  const float* weights = &bundle_.relevance[static_cast<std::size_t>(k) * bundle_.stages.size()];
  std::fill_n(map, patch.width * patch.height, 0.0F);
  for (int s = 0; s < bundle_.stage_count(); ++s) {
    const Stage& grid = bundle_.stages[static_cast<std::size_t>(s)];
    const Upsampling& up = stages_[static_cast<std::size_t>(s)];
    const float weight = weights[s];
    const float* cam = engine.cams(s) + static_cast<std::ptrdiff_t>(k) * grid.width * grid.height;
    const auto row = [=](int i) noexcept {
      return [cells = cam + i * grid.width, weight](int j) noexcept { return weight * cells[j]; };
    };
    resample(row, up.rows, up.columns, patch, map, patch.width, scratch);
  }
}

}  // namespace msloc
