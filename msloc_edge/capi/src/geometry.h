// How a film is fitted into the model's input, and how points find their way back: msloc_edge/imaging/geometry.py.
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

  /// Letterbox an image into an input; all sides at least 1.
  static Geometry fit(Size image, Size input) noexcept;

  /// Input pixels -> image pixels.
  [[nodiscard]] Point to_image(Point point) const noexcept;
  /// The same, held within the image.
  [[nodiscard]] Point to_image_clipped(Point point) const noexcept;
  /// Whether the film is smaller than its place: bilinear then, area averages otherwise.
  [[nodiscard]] bool enlarges() const noexcept { return width > image.width || height > image.height; }
};

}  // namespace msloc
