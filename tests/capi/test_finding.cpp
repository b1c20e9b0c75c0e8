// Peak and boxes of a map of which only some rows are made, against all its pixels.
#include "finding.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "check.h"
#include "random_maps.h"

namespace {

using namespace msloc;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct Localized {
  Bundle bundle;
  std::unique_ptr<Engine> engine;
  Map map;
  Regions regions;
  Geometry geometry{};
  Finding finding;

  explicit Localized(Bundle of)
      : bundle(std::move(of)), engine(make_engine("", bundle, {})), map(bundle), regions(bundle.input) {
    finding.boxes.reserve(16);
    finding.score = 0.5;
  }

  /// An image as large as the patch, so that boxes are given in its pixels.
  void run(int k, const Patch& patch, float threshold, const RegionRule& rule = {}) {
    geometry = {{patch.width, patch.height}, bundle.input, patch.left, patch.top, patch.width, patch.height};
    map.set(*engine, k, patch);
    finding.boxes.clear();
    finding.boxes_found = 0;
    localize_class(map, static_cast<double>(threshold), rule, geometry, regions, finding);
  }
};

void compare(Localized& localized, float threshold) {
  Map& map = localized.map;
  const Finding& finding = localized.finding;
  Maximum peak{0, 0, -kInfinity};
  localized.regions.begin(map.width(), threshold);
  for (int y = 0; y < map.height(); ++y) {
    const float* row = map.row(y);
    for (int x = 0; x < map.width(); ++x)
      if (row[x] > peak.value) peak = {x, y, row[x]};
    localized.regions.add(row, y);
  }
  check(std::abs(finding.peak.value - peak.value) < 1e-6F, "the highest value");
  if (Knots::suit(localized.bundle))  // else weights are rounded, and so bounds
    check(finding.peak.x == peak.x && finding.peak.y == peak.y, "the first of the highest pixels");
  check(finding.peak_at.x == finding.peak.x + 0.5 && finding.peak_at.y == finding.peak.y + 0.5, "its centre");
  std::vector<Region> regions = localized.regions.finish();
  regions.erase(std::remove_if(regions.begin(), regions.end(), [](const Region& r) { return r.area < 16; }),
                regions.end());
  std::stable_sort(regions.begin(), regions.end(), [](const Region& a, const Region& b) { return a.peak > b.peak; });
  check(finding.boxes_found == static_cast<int>(regions.size()), "as many boxes");
  for (std::size_t i = 0; i < finding.boxes.size(); ++i) {
    const Region& region = regions[i];
    const msloc_box& box = finding.boxes[i];
    const bool left_top = box.x == region.left && box.y == region.top;
    check(left_top && box.x + box.w == region.right && box.y + box.h == region.bottom,
          "a box around its region, the strongest first");
  }
}

void test_against_all_pixels() {
  std::mt19937 random(5);
  for (int trial = 0; trial < 400; ++trial) {
    const Bundle bundle = random_bundle(random, trial % 2 == 0);
    random_cams(random, bundle);
    Localized localized(bundle);
    for (const float threshold : {-kInfinity, -0.97F, 0.03F, 0.7F, 1.53F, kInfinity}) {
      localized.run(trial / 2 % 2, random_patch(random, bundle.input), threshold);
      compare(localized, threshold);
    }
  }
}

Bundle one_stage(Size grid, int cell) {
  Bundle bundle;
  bundle.classes = {"A"};
  bundle.input = {cell * grid.width, cell * grid.height};
  bundle.stages = {grid};
  bundle.relevance = {1};
  return bundle;
}

void test_flat() {
  script.cams = {std::vector<float>(16, 2)};
  Localized localized(one_stage({4, 4}, 4));
  localized.run(0, {3, 2, 10, 9}, 2);
  check(localized.finding.peak.x == 0 && localized.finding.peak.y == 0 && localized.finding.peak.value == 2, "flat");
  check(localized.finding.boxes_found == 0, "what equals the threshold is below it");
  localized.run(0, {3, 2, 10, 9}, -kInfinity);
  const msloc_box& all = localized.finding.boxes.front();
  check(localized.finding.boxes_found == 1 && all.x == 0 && all.y == 0 && all.w == 10 && all.h == 9, "all of it");
  localized.run(0, {15, 15, 1, 1}, 1);
  check(localized.finding.boxes_found == 0 && localized.finding.peak.value == 2, "one pixel is too small a region");
}

/// Weights of thirds: sums of their products with one value are that value or just beside it, bounds as well.
void test_flat_with_rounding() {
  for (const float value : {0.1F, 0.3F, 1.7F, -0.7F}) {
    script.cams = {std::vector<float>(25, value)};
    Localized localized(one_stage({5, 5}, 3));
    localized.run(0, {0, 0, 15, 15}, value - 0.01F);
    check(std::abs(localized.finding.peak.value - value) < 1e-6F, "a flat map has a peak");
    check(localized.finding.boxes_found == 1 && localized.finding.boxes.front().w == 15, "and one region");
  }
}

void test_many_regions() {
  constexpr int kSide = 63;  // 32 x 32 cells that stand out, each 8 pixels from the next
  script.cams = {std::vector<float>(std::size_t{kSide} * kSide)};
  for (std::size_t y = 0; y < kSide; y += 2)
    for (std::size_t x = 0; x < kSide; x += 2)
      script.cams[0][kSide * y + x] = 1 + static_cast<float>(32 * y + x) / 4096;
  Localized localized(one_stage({kSide, kSide}, 4));
  localized.run(0, {0, 0, 4 * kSide, 4 * kSide}, 0.25F);
  check(localized.finding.boxes_found == 1024 && localized.finding.boxes.size() == 16, "the strongest of 1024");
  compare(localized, 0.25F);
}

/// A row of `cells` pixels of one value.
struct Bar {
  int cells;
  float value;
};

/// The widths of the bars that become boxes at a threshold of 1, the strongest first. A free row is between them.
std::vector<int> widths(const std::vector<Bar>& bars, const RegionRule& rule) {
  constexpr int kSide = 64;  // cells of one pixel, so that a bar's area is its cells
  script.cams = {std::vector<float>(std::size_t{kSide} * kSide)};
  for (std::size_t row = 0; row < bars.size(); ++row)
    std::fill_n(script.cams[0].begin() + static_cast<std::ptrdiff_t>(2 * row * kSide), bars[row].cells,
                bars[row].value);
  Localized localized(one_stage({kSide, kSide}, 1));
  localized.run(0, {0, 0, kSide, kSide}, 1, rule);
  check(localized.finding.boxes_found == static_cast<int>(localized.finding.boxes.size()), "all are kept");
  std::vector<int> found;
  for (const msloc_box& box : localized.finding.boxes) found.push_back(static_cast<int>(box.w));
  return found;
}

void test_region_rule() {
  using Widths = std::vector<int>;
  const std::vector<Bar> bars{{16, 2}, {30, 3}, {31, 1.5F}, {40, 5}};  // excess 1, 2, 0.5, 4
  check(widths(bars, {}) == Widths{40, 30, 16, 31}, "without a rule all regions of 16 pixels");
  check(widths(bars, {31, 0}) == Widths{40, 31}, "at least min_area pixels");
  check(widths(bars, {30.5, 0}) == Widths{40, 31}, "which need not be whole");
  check(widths(bars, {16, 0.25}) == Widths{40, 30, 16}, "an excess of min_share of the strongest, or more");
  check(widths(bars, {16, 0.26}) == Widths{40, 30}, "not less");
  check(widths(bars, {16, 1}) == Widths{40}, "the strongest alone");
  check(widths(bars, {31, 0.2}) == Widths{40}, "both rules");
  check(widths(bars, {41, 0}).empty(), "nothing is large enough");
  check(widths({{15, 9}, {17, 5}, {20, 2}}, {16, 0.25}) == Widths{17, 20}, "what is too small sets no measure");
  check(widths({{15, 9}, {17, 5}}, {15, 0}) == Widths{15, 17}, "a smaller min_area finds smaller ones");
  check(widths({{1, 9}, {2, 2}}, {1, 0}) == Widths{1, 2}, "down to a pixel");
}

void test_scores_of_boxes() {
  script.cams = {std::vector<float>(std::size_t{64} * 64)};
  std::fill_n(script.cams[0].begin(), 30, 3);
  std::fill_n(script.cams[0].begin() + 128, 20, 5);
  Localized localized(one_stage({64, 64}, 1));
  localized.run(0, {0, 0, 64, 64}, 1);
  check(localized.finding.boxes.size() == 2 && localized.finding.boxes[0].score == 0.5, "the finding's score");
  check(localized.finding.boxes[1].score == 0.25, "half the excess, half of it");
}

void test_what_is_no_number() {
  for (const int cell : {4, 3}) {  // with knots and without
    script.cams = {std::vector<float>(64, std::numeric_limits<float>::quiet_NaN())};
    Localized localized(one_stage({8, 8}, cell));
    const Patch all{0, 0, 8 * cell, 8 * cell};
    localized.run(0, all, -kInfinity);
    check(localized.finding.peak.value == -kInfinity && localized.finding.boxes_found == 0, "no number at all");
    for (std::size_t i = 0; i < 64; ++i) script.cams[0][i] = i % 8 == 2 ? script.cams[0][i] : static_cast<float>(i);
    for (const float threshold : {-kInfinity, 30.0F, kInfinity}) {
      localized.run(0, all, threshold);
      compare(localized, threshold);
      check(localized.finding.peak.value == 63, "NaN hides nothing");
    }
    script.cams[0].assign(64, -kInfinity);
    localized.run(0, all, 0);
    check(localized.finding.peak.value == -kInfinity && localized.finding.boxes_found == 0, "nothing but -inf");
    script.cams[0].assign(64, 1);
    script.cams[0][9] = kInfinity;
    script.cams[0][27] = -kInfinity;
    localized.run(0, all, 0.5F);
    check(localized.finding.peak.value == kInfinity, "an infinity is the peak, and the library refuses it");
  }
}

}  // namespace

int main() {
  test_against_all_pixels();
  test_flat();
  test_flat_with_rounding();
  test_many_regions();
  test_region_rule();
  test_scores_of_boxes();
  test_what_is_no_number();
  script = {};
  return finish();
}
