// Class maps of random numbers on grids of any sizes, given by the fake engine.
#pragma once

#include <memory>
#include <random>
#include <vector>

#include "bundle.h"
#include "engine.h"
#include "fake_engine.h"

/// Stages of which each one's cells are twice as large as those before, as most networks have, or of any sizes.
inline msloc::Bundle random_bundle(std::mt19937& random, bool doubling) {
  const auto below = [&](unsigned end) { return static_cast<int>(random() % end); };
  msloc::Bundle bundle;
  bundle.classes = {"A", "B"};
  const int stages = 1 + below(4);
  const int last = stages - 1;
  msloc::Size grid{1 + below(4), 1 + below(4)};
  if (doubling) {
    const int cell = 2 + 2 * below(3);
    bundle.input = {(cell * grid.width) << last, (cell * grid.height) << last};
  } else {
    bundle.input = {1 + below(60), 1 + below(60)};
  }
  for (int s = 0; s < stages; ++s)
    bundle.stages.push_back(doubling ? msloc::Size{grid.width << (last - s), grid.height << (last - s)}
                                     : msloc::Size{1 + below(20), 1 + below(20)});
  for (int i = 0; i < 2 * stages; ++i) bundle.relevance.push_back(static_cast<float>(1 + below(9)) / 16);
  return bundle;
}

/// Lets engines give small whole numbers: sums of them come out equal in many places.
inline void random_cams(std::mt19937& random, const msloc::Bundle& bundle) {
  script.cams.clear();
  for (const msloc::Stage& grid : bundle.stages) {
    std::vector<float>& cams = script.cams.emplace_back(static_cast<std::size_t>(2 * grid.width * grid.height));
    for (float& value : cams) value = static_cast<float>(random() % 9) - 4;
  }
}

inline msloc::Patch random_patch(std::mt19937& random, msloc::Size input) {
  const auto below = [&](int end) { return static_cast<int>(random() % static_cast<unsigned>(end)); };
  const int left = below(input.width);
  const int top = below(input.height);
  return {left, top, 1 + below(input.width - left), 1 + below(input.height - top)};
}
