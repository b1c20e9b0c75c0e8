// Localization maps against their formula, pixel by pixel: stages that have common knots, and stages that have none.
#include "map.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "check.h"
#include "random_maps.h"

namespace {

using namespace msloc;

/// The value of one stage at the centre of a pixel: bilinear, half-pixel centres, clamped at the edge.
double bilinear(const float* cells, Size grid, Size input, int x, int y) {
  const double across = std::clamp((x + 0.5) * grid.width / input.width - 0.5, 0.0, grid.width - 1.0);
  const double down = std::clamp((y + 0.5) * grid.height / input.height - 0.5, 0.0, grid.height - 1.0);
  double sum = 0;
  for (int i = 0; i < grid.height; ++i)
    for (int j = 0; j < grid.width; ++j)
      sum += std::max(0.0, 1 - std::abs(across - j)) * std::max(0.0, 1 - std::abs(down - i)) *
             static_cast<double>(cells[i * grid.width + j]);
  return sum;
}

double expected(const Bundle& bundle, std::size_t k, int x, int y) {
  double sum = 0;
  for (std::size_t s = 0; s < bundle.stages.size(); ++s) {
    const Size grid = bundle.stages[s];
    const float* cells = &script.cams[s][k * static_cast<std::size_t>(grid.width * grid.height)];
    sum += static_cast<double>(bundle.relevance[k * bundle.stages.size() + s]) *
           bilinear(cells, grid, bundle.input, x, y);
  }
  return sum;
}

void test_pixels(std::mt19937& random, bool doubling) {
  const Bundle bundle = random_bundle(random, doubling);
  random_cams(random, bundle);
  const auto engine = make_engine("", bundle, {});
  Map map(bundle);
  for (const std::size_t k : {std::size_t{1}, std::size_t{0}}) {
    const Patch patch = random_patch(random, bundle.input);
    map.set(*engine, static_cast<int>(k), patch);
    check(map.width() == patch.width && map.height() == patch.height, "the size of the patch");
    double worst = 0;
    const auto look = [&](int y) {
      const float* row = map.row(y);
      for (int x = 0; x < patch.width; ++x)
        worst = std::max(worst,
                         std::abs(static_cast<double>(row[x]) - expected(bundle, k, patch.left + x, patch.top + y)));
      check(*std::max_element(row, row + patch.width) <= map.bound(y) + 1e-5F, "no pixel is higher than the bound");
    };
    for (int y = 0; y < patch.height; ++y) look(y);
    for (int i = 0; i < 3; ++i) look(static_cast<int>(random() % static_cast<unsigned>(patch.height)));
    check(worst < 1e-5, (doubling ? "doubling" : "any sizes") + std::string(": off by ") + std::to_string(worst));
  }
}

/// One stage of one cell of 2 x 2 cells over 4 x 4 pixels, by hand.
void test_by_hand() {
  Bundle bundle;
  bundle.classes = {"A"};
  bundle.input = {4, 4};
  bundle.stages = {{2, 2}};
  bundle.relevance = {0.5};
  script.cams = {{0, 8, 16, 24}};
  const auto engine = make_engine("", bundle, {});
  check(Knots::suit(bundle) && Knots::size(bundle).width == 5, "corners, centres and what lies between them");
  Map map(bundle);
  map.set(*engine, 0, {0, 0, 4, 4});
  const float down[4] = {0, 2, 6, 8};  // half of 16 between the centres of two cells, at their quarters
  const float across[4] = {0, 1, 3, 4};
  for (int y = 0; y < 4; ++y)
    for (int x = 0; x < 4; ++x) check(map.row(y)[x] == down[y] + across[x], "a pixel of 4 x 4");
  check(map.bound(0) == 4 && map.bound(3) == 12, "a row's bound is its highest knot");
}

void test_which_stages_have_knots() {
  Bundle bundle;
  const auto suit = [&](Size input, std::vector<Stage> stages) {
    bundle.input = input;
    bundle.stages = std::move(stages);
    return Knots::suit(bundle);
  };
  check(suit({64, 32}, {{16, 8}, {8, 4}, {4, 2}}), "each half as large as the one before");
  check(suit({64, 64}, {{32, 32}}), "cells of two pixels");
  check(!suit({64, 64}, {{64, 64}}) && !suit({15, 15}, {{5, 5}}), "cells of one and of three pixels");
  check(!suit({64, 64}, {{16, 8}, {8, 4}}), "cells that are no squares");
  check(!suit({64, 64}, {{16, 16}, {4, 4}}) && !suit({8, 8}, {{16, 16}}), "a step of four, and a stage too large");
}

/// What is no number stays where it is: at most a finest cell's width around the cell that it comes from.
void test_what_is_no_number() {
  for (const float odd : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                          -std::numeric_limits<float>::infinity()}) {
    Bundle bundle;
    bundle.classes = {"A"};
    bundle.input = {32, 32};
    bundle.stages = {{8, 8}, {4, 4}};
    bundle.relevance = {0.5, 0.5};
    script.cams = {std::vector<float>(64, 1), std::vector<float>(16, 1)};
    script.cams[0][8 * 2 + 5] = odd;
    const auto engine = make_engine("", bundle, {});
    Map map(bundle);
    map.set(*engine, 0, {0, 0, 32, 32});
    for (int y = 0; y < 32; ++y) {
      const float* row = map.row(y);
      bool higher = false;
      for (int x = 0; x < 32; ++x) {
        const bool near = std::abs(x + 0.5 - 22) < 4 && std::abs(y + 0.5 - 10) < 4;
        check(near ? !std::isfinite(row[x]) : row[x] == 1, "pixels beside what is no number");
        higher = higher || row[x] > map.bound(y);
      }
      check(!higher, "its rows have bounds");
    }
  }
}

}  // namespace

int main() {
  std::mt19937 random(3);
  for (int trial = 0; trial < 300; ++trial) test_pixels(random, trial % 2 == 0);
  test_by_hand();
  test_which_stages_have_knots();
  test_what_is_no_number();
  return finish();
}
