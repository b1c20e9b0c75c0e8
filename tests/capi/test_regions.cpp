// Regions by runs against a flood fill, over shapes that are hard and random ones.
#include <algorithm>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "check.h"
#include "regions.h"

namespace {

using namespace msloc;

struct Map {
  int width;
  int height;
  std::vector<float> values;

  [[nodiscard]] float at(int x, int y) const { return values[static_cast<std::size_t>(y * width + x)]; }
};

Map picture(const std::vector<std::string>& rows) {
  Map map{static_cast<int>(rows.front().size()), static_cast<int>(rows.size()), {}};
  for (const std::string& row : rows)
    for (const char c : row) map.values.push_back(c == '.' ? 0.0F : static_cast<float>(c - '0'));
  return map;
}

void flood(const Map& map, float threshold, int x, int y, std::vector<bool>& seen, Region& region) {
  std::vector<std::pair<int, int>> open{{x, y}};
  while (!open.empty()) {
    const auto [px, py] = open.back();
    open.pop_back();
    if (px < 0 || py < 0 || px >= map.width || py >= map.height) continue;
    const auto index = static_cast<std::size_t>(py * map.width + px);
    if (seen[index] || !(map.at(px, py) > threshold)) continue;
    seen[index] = true;
    region = {std::min(region.left, px),       std::min(region.top, py), std::max(region.right, px + 1),
              std::max(region.bottom, py + 1), region.area + 1,          std::max(region.peak, map.at(px, py))};
    for (int dy = -1; dy <= 1; ++dy)
      for (int dx = -1; dx <= 1; ++dx) open.emplace_back(px + dx, py + dy);
  }
}

std::vector<Region> by_flooding(const Map& map, float threshold) {
  std::vector<Region> regions;
  std::vector<bool> seen(map.values.size());
  for (int y = 0; y < map.height; ++y)
    for (int x = 0; x < map.width; ++x) {
      if (seen[static_cast<std::size_t>(y * map.width + x)] || !(map.at(x, y) > threshold)) continue;
      regions.push_back({x, y, 0, 0, 0, map.at(x, y)});
      flood(map, threshold, x, y, seen, regions.back());
    }
  return regions;
}

/// Rows without a pixel above the threshold come or are left out, in turns.
const std::vector<Region>& by_runs(const Map& map, float threshold, Regions& finder) {
  bool left_out = false;
  finder.begin(map.width, threshold);
  for (int y = 0; y < map.height; ++y) {
    const float* row = &map.values[static_cast<std::size_t>(y * map.width)];
    const bool any = std::any_of(row, row + map.width, [=](float value) { return value > threshold; });
    left_out = !any && !left_out;
    if (!left_out) finder.add(row, y);
  }
  return finder.finish();
}

void compare(const Map& map, float threshold, Regions& finder, const std::string& what) {
  const std::vector<Region>& found = by_runs(map, threshold, finder);
  const std::vector<Region> expected = by_flooding(map, threshold);
  check(found.size() == expected.size(), what + ": " + std::to_string(found.size()) + " regions");
  for (std::size_t i = 0; i < std::min(found.size(), expected.size()); ++i) {
    const Region& a = found[i];
    const Region& b = expected[i];
    check(a.left == b.left && a.top == b.top && a.right == b.right && a.bottom == b.bottom && a.area == b.area &&
              a.peak == b.peak,
          what + ": region " + std::to_string(i));
  }
}

}  // namespace

int main() {
  Regions finder({64, 64});
  compare(picture({"....", "....", "...."}), 0, finder, "nothing");
  compare(picture({"2222", "2292", "2222"}), 0, finder, "everything");
  compare(picture({"1..1", ".11.", "1..1"}), 0, finder, "corners touch");
  compare(picture({"1.1.1.1", "1.1.1.1", "1111111"}), 0, finder, "a comb");
  compare(picture({"1111111", "1.....1", "1.111.1", "1.1.1.1", "1.1...1", "1.11111"}), 0, finder, "a spiral");
  compare(picture({"1...1", ".1.1.", "..9..", "3...3"}), 0, finder, "a Y, and one beside it");
  compare(picture({"135", "531"}), 3, finder, "what equals the threshold is below it");
  compare(picture({"1.1", "...", "1.1"}), 0, finder, "a row apart");
  compare(picture({"1"}), 0, finder, "one pixel");
  compare(picture({"."}), 0, finder, "no pixel");

  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  constexpr float kNone = std::numeric_limits<float>::quiet_NaN();
  const Map odd{4, 3, {1, kNone, kInfinity, -kInfinity, kNone, kNone, -kInfinity, 2, 3, -kInfinity, kNone, 4}};
  for (const float threshold : {-kInfinity, -1.0F, 2.0F, kInfinity, kNone})
    compare(odd, threshold, finder, "what is no number, above " + std::to_string(threshold));

  Map grid{64, 64, std::vector<float>(std::size_t{64} * 64)};
  for (int y = 0; y < 64; y += 2)
    for (int x = 0; x < 64; x += 2) grid.values[static_cast<std::size_t>(64 * y + x)] = 1;
  compare(grid, 0, finder, "as many regions as there can be");

  std::mt19937 random(7);
  for (int trial = 0; trial < 2000; ++trial) {
    Map map{1 + static_cast<int>(random() % 64), 1 + static_cast<int>(random() % 64), {}};
    const unsigned density = 1 + static_cast<unsigned>(trial) % 9;
    for (int i = 0; i < map.width * map.height; ++i)
      map.values.push_back(random() % 10 < density ? static_cast<float>(1 + random() % 100) : 0.0F);
    compare(map, 0, finder, "random " + std::to_string(trial));
  }
  return finish();
}
