// The weights of the letterbox and of the maps against their formulas, and the sums over them.
#include <algorithm>
#include <cmath>
#include <vector>

#include "check.h"
#include "geometry.h"
#include "resample.h"

namespace {

using namespace msloc;

/// The weights of one output pixel over all source pixels; an index outside fails.
std::vector<double> spread(const Axis& axis, int j, int source) {
  std::vector<double> weights(static_cast<std::size_t>(source));
  const auto add = [&](int i, float weight) {
    check(i >= 0 && i < source, "index " + std::to_string(i) + " of " + std::to_string(source));
    if (i >= 0 && i < source) weights[static_cast<std::size_t>(i)] += static_cast<double>(weight);
  };
  const Span& span = axis.spans()[j];
  add(span.first, span.first_weight);
  for (int i = 1; i <= axis.middles(); ++i) add(span.first + i, span.middle_weight);
  add(span.next, span.next_weight);
  add(span.last, span.last_weight);
  return weights;
}

double area_weight(int i, int j, double scale) {
  return std::max(0.0, std::min(i + 1.0, (j + 1) * scale) - std::max<double>(i, j * scale)) / scale;
}

double linear_weight(int i, int j, double scale, int source) {
  return std::max(0.0, 1 - std::abs(std::clamp((j + 0.5) * scale - 0.5, 0.0, source - 1.0) - i));
}

void test_axis(int source, int target) {
  Axis axis(target);
  const bool enlarges = target > source;
  enlarges ? axis.set_linear(source, target) : axis.set_area(source, target);
  const double scale = static_cast<double>(source) / target;
  double worst = 0;
  for (int j = 0; j < target; ++j) {
    const std::vector<double> weights = spread(axis, j, source);
    for (int i = 0; i < source; ++i) {
      const double expected = enlarges ? linear_weight(i, j, scale, source) : area_weight(i, j, scale);
      worst = std::max(worst, std::abs(weights[static_cast<std::size_t>(i)] - expected));
    }
  }
  // a part of a pixel below a thousandth is left out, as cv2 does
  check(worst <= 1.1e-3 / scale,
        std::to_string(source) + " -> " + std::to_string(target) + " is off by " + std::to_string(worst));
}

void test_knots() {
  // five knots of a row of eight pixels: the centres of its pixels lie at a quarter and three quarters between them
  Axis axis(8);
  axis.set_knots(5, 8);
  for (int j = 0; j < 8; ++j) {
    const std::vector<double> weights = spread(axis, j, 5);
    const auto before = static_cast<std::size_t>(j / 2);
    check(weights[before] == (j % 2 == 0 ? 0.75 : 0.25) && weights[before] + weights[before + 1] == 1, "knots");
  }
}

void test_patch() {
  // a patch of a plane that rises by 1 for each column and 10 for each row, enlarged four times
  Axis axis(32);
  axis.set_linear(8, 32);
  std::vector<float> out(6, 1.0F);
  std::vector<float> scratch(2 * 3);
  const auto row = [](int i) { return [i](int j) { return static_cast<float>(10 * i + j); }; };
  resample(row, axis, axis, {9, 14, 3, 2}, out.data(), 3, scratch.data());
  for (int y = 0; y < 2; ++y)
    for (int x = 0; x < 3; ++x) {
      const double expected = 1 + 10 * ((14 + y + 0.5) / 4 - 0.5) + (9 + x + 0.5) / 4 - 0.5;
      check(std::abs(static_cast<double>(out[static_cast<std::size_t>(3 * y + x)]) - expected) < 1e-4, "a patch");
    }
}

void test_geometry() {
  // half a pixel is rounded to even, as Python does: 5 * 50 / 100 = 2.5 -> 2, 7 * 50 / 100 = 3.5 -> 4
  check(Geometry::fit({100, 5}, {50, 50}).height == 2, "2.5 -> 2");
  check(Geometry::fit({100, 7}, {50, 50}).height == 4, "3.5 -> 4");
  check(Geometry::fit({10000, 32}, {64, 64}).height == 1, "at least one row");
  const Geometry g = Geometry::fit({2500, 3000}, {256, 256});
  check(g.width == 213 && g.height == 256 && g.left == 21 && g.top == 0, "a film of 2500 x 3000");
  const Point corner = g.to_image({static_cast<double>(g.left + g.width), static_cast<double>(g.top + g.height)});
  check(std::abs(corner.x - 2500) < 1e-9 && std::abs(corner.y - 3000) < 1e-9, "the corner comes back");
  const Point outside = g.to_image_clipped({-5, 900});
  check(outside.x == 0 && outside.y == 3000, "points are held within the image");
}

}  // namespace

int main() {
  for (int target : {1, 2, 7, 64, 213, 256, 512})
    for (int source :
         {1, 2, 3, 8, 32, 33, 63, 64, 65, 127, 128, 129, 255, 256, 257, 384, 511, 512, 513, 640, 1000, 1955, 2500})
      test_axis(source, target);
  test_knots();
  test_patch();
  test_geometry();
  return finish();
}
