#include "geometry.h"

#include <algorithm>
#include <cmath>

namespace msloc {
namespace {

/// Python's round: half to even, whatever the rounding mode of the process.
int round_half_even(double value) noexcept {
  const double low = std::floor(value);
  const double part = value - low;
  const bool up = part > 0.5 || (part == 0.5 && std::fmod(low, 2.0) != 0.0);
  return static_cast<int>(up ? low + 1 : low);
}

}  // namespace

Geometry Geometry::fit(Size image, Size input) noexcept {
  const double scale =
      std::min(static_cast<double>(input.width) / image.width, static_cast<double>(input.height) / image.height);
  const int width = std::min(input.width, std::max(1, round_half_even(image.width * scale)));
  const int height = std::min(input.height, std::max(1, round_half_even(image.height * scale)));
  return {image, input, (input.width - width) / 2, (input.height - height) / 2, width, height};
}

Point Geometry::to_image(Point point) const noexcept {
  return {(point.x - left) / (static_cast<double>(width) / image.width),
          (point.y - top) / (static_cast<double>(height) / image.height)};
}

Point Geometry::to_image_clipped(Point point) const noexcept {
  const Point at = to_image(point);
  return {std::clamp(at.x, 0.0, static_cast<double>(image.width)),
          std::clamp(at.y, 0.0, static_cast<double>(image.height))};
}

}  // namespace msloc
