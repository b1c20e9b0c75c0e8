#include "knots.h"

#include <algorithm>

namespace msloc {
namespace {

int points(int cells) noexcept { return 2 * cells + 1; }

/// A stage's weighted cells [h, w] and the total of coarser stages [h + 1, w + 1], at points half as far apart.
///
/// The cells' values belong to their centres, the total's to their corners: each takes every other row and column of
/// the finer lattice, and the mean of its neighbours is its value between them.
///
/// finer  [2 h + 1, 2 w + 1]
/// lines  2 w + 3 floats of scratch
void refine(const float* cells, Stage grid, float weight, const float* total, float* finer, float* lines) noexcept {
  const int width = grid.width;
  float* corners = lines;
  float* centres = lines + width + 2;  // centres[-1] and centres[width]: beyond the outermost a map goes on as it ends
  for (int y = 0; y < points(grid.height); ++y, finer += points(width)) {
    const float* above = total + y / 2 * (width + 1);
    const float* below = total + (y + 1) / 2 * (width + 1);
    for (int x = 0; x <= width; ++x) corners[x] = 0.5F * (above[x] + below[x]);
    above = cells + std::max((y - 1) / 2, 0) * width;
    below = cells + std::min(y / 2, grid.height - 1) * width;
    for (int x = 0; x < width; ++x) centres[x] = 0.5F * weight * (above[x] + below[x]);
    centres[-1] = centres[0];
    centres[width] = centres[width - 1];
    for (int x = 0; x < width; ++x) {
      finer[2 * x] = corners[x] + 0.5F * (centres[x - 1] + centres[x]);
      finer[2 * x + 1] = 0.5F * (corners[x] + corners[x + 1]) + centres[x];
    }
    finer[2 * width] = corners[width] + centres[width];
  }
}

}  // namespace

bool Knots::suit(const Bundle& bundle) noexcept {
  const Stage& finest = bundle.stages.front();
  int factor = bundle.input.width / finest.width;
  if (factor < 2 || factor % 2 != 0) return false;
  Size finer = bundle.input;
  for (const Stage& stage : bundle.stages) {
    if (finer.width != factor * stage.width || finer.height != factor * stage.height) return false;
    finer = stage;
    factor = 2;
  }
  return true;
}

Knots::Knots(const Bundle& bundle) : bundle_(bundle) {
  const auto room = [](int width, int height) {
    return std::vector<float>(static_cast<std::size_t>(width) * static_cast<std::size_t>(height));
  };
  for (const Stage& stage : bundle.stages) totals_.push_back(room(points(stage.width), points(stage.height)));
  totals_.push_back(room(bundle.stages.back().width + 1, bundle.stages.back().height + 1));
  lines_ = room(points(bundle.stages.front().width) + 2, 1);
}

Size Knots::size(const Bundle& bundle) noexcept {
  return {points(bundle.stages.front().width), points(bundle.stages.front().height)};
}

const float* Knots::add_stages(const Engine& engine, int k) noexcept {
  const float* weights = &bundle_.relevance[static_cast<std::size_t>(k) * bundle_.stages.size()];
  for (int s = bundle_.stage_count() - 1; s >= 0; --s) {
    const auto at = static_cast<std::size_t>(s);
    const Stage& grid = bundle_.stages[at];
    const float* cells = engine.cams(s) + static_cast<std::ptrdiff_t>(k) * grid.width * grid.height;
    refine(cells, grid, weights[s], totals_[at + 1].data(), totals_[at].data(), lines_.data());
  }
  return totals_.front().data();
}

}  // namespace msloc
