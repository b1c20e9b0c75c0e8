// The place of a film within the model's input, and the way of points back: msloc_edge/imaging/geometry.py.
#pragma once

namespace msloc {

struct Size {
  int width;
  int height;
};

struct Point {
  double x;
  double y;
};

/// x_input = x_image * width / image.width + left, and likewise for y.
struct Geometry {
  Size image;
  Size input;
  int left;
  int top;
  int width;
  int height;

  /// Letterboxes an image into an input; all sides at least 1.
  static Geometry fit(Size image, Size input) noexcept;

  /// Converts input pixels to image pixels.
  [[nodiscard]] Point to_image(Point point) const noexcept;
  /// Converts them, held within the image.
  [[nodiscard]] Point to_image_clipped(Point point) const noexcept;
  /// Says whether the film is smaller than its place: bilinear then, area averages otherwise.
  [[nodiscard]] bool enlarges() const noexcept { return width > image.width || height > image.height; }
};

}  // namespace msloc
