#include "overlay.h"

#include <stb_easy_font.h>
#define STB_IMAGE_WRITE_IMPLEMENTATION
#define STB_IMAGE_WRITE_STATIC
#include <stb_image_write.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>

namespace {

using Color = std::array<std::uint8_t, 3>;
using msloc_edge::Expected;
using msloc_edge::Finding;

constexpr std::uint32_t kSide = 1024;  // the picture's longest side is at least this
constexpr int kText = 2;               // enlargement of stb_easy_font's 7 pixels

/// The hues of msloc_edge/render/colors.py, in the order of the shipped model's classes.
constexpr std::array<Color, 14> kColors{{{0x56, 0xb4, 0xe9},
                                         {0xf5, 0xa3, 0x00},
                                         {0x12, 0xb8, 0x86},
                                         {0xe5, 0x8f, 0xc4},
                                         {0xef, 0x5b, 0x2b},
                                         {0xf2, 0xe6, 0x4b},
                                         {0x5f, 0x84, 0xf2},
                                         {0xb8, 0xf2, 0xe0},
                                         {0xc9, 0xe6, 0xff},
                                         {0xc4, 0xa3, 0xff},
                                         {0xff, 0xcb, 0x94},
                                         {0xb9, 0xab, 0x4f},
                                         {0xff, 0xc9, 0xe6},
                                         {0xcd, 0x8a, 0x6c}}};

/// An RGB picture of the film's area in the model's input, enlarged by a whole number.
class Picture {
 public:
  Picture(const msloc_model& model, const msloc_summary& film)
      : input_width_(model.input_width),
        input_height_(model.input_height),
        film_(film),
        scale_(std::max(1U, (kSide + std::max(film.width, film.height) - 1) / std::max(film.width, film.height))),
        width_(static_cast<int>(film.width * scale_)),
        height_(static_cast<int>(film.height * scale_)),
        rgb_(std::size_t{3} * static_cast<std::size_t>(width_) * static_cast<std::size_t>(height_)) {}

  /// Draws the film, from the model's input.
  void film(const std::vector<float>& input) {
    for (int y = 0; y < height_; ++y)
      for (int x = 0; x < width_; ++x)
        std::fill_n(at(x, y), 3,
                    static_cast<std::uint8_t>(std::lround(255 * std::clamp(sample(input, x, y), 0.0F, 1.0F))));
  }

  /// Tints what of a box is above the threshold of its map: what is above it outside of boxes is no finding.
  void tint(const msloc_box& box, const std::vector<float>& map, double threshold, const Color& color) {
    for (int y = row(box.y); y < row(box.y + box.h); ++y)
      for (int x = column(box.x); x < column(box.x + box.w); ++x)
        if (static_cast<double>(sample(map, x, y)) >= threshold)
          for (std::size_t i = 0; i < 3; ++i) at(x, y)[i] = static_cast<std::uint8_t>((3 * at(x, y)[i] + color[i]) / 4);
  }

  /// The outline of a box in pixels of the stored film.
  void outline(const msloc_box& box, const Color& color) {
    const int left = column(box.x);
    const int right = column(box.x + box.w) - 1;
    const int top = row(box.y);
    const int bottom = row(box.y + box.h) - 1;
    for (const int inset : {0, 1}) {
      fill(left, top + inset, right, top + inset, color);
      fill(left, bottom - inset, right, bottom - inset, color);
      fill(left + inset, top, left + inset, bottom, color);
      fill(right - inset, top, right - inset, bottom, color);
    }
  }

  /// A line of text above a box, or inside it at the film's upper edge.
  void label(const msloc_box& box, std::string text, const Color& color) {
    struct Vertex {
      float x, y, z;
      std::uint8_t color[4];
    };
    std::vector<Vertex> corners(4 * 64 * text.size());
    const int quads = stb_easy_font_print(0, 0, text.data(), nullptr, corners.data(),
                                          static_cast<int>(corners.size() * sizeof(Vertex)));
    const int left = column(box.x) + 2;
    const int above = row(box.y) - 9 * kText;
    const int top = above < 0 ? row(box.y) + 3 * kText : above;
    for (std::size_t quad = 0; quad < static_cast<std::size_t>(quads); ++quad) {
      const Vertex& first = corners[4 * quad];
      const Vertex& last = corners[4 * quad + 2];
      fill(left + kText * static_cast<int>(first.x), top + kText * static_cast<int>(first.y),
           left + kText * static_cast<int>(last.x) - 1, top + kText * static_cast<int>(last.y) - 1, color);
    }
  }

  [[nodiscard]] bool write(const std::string& file) const {
    return stbi_write_png(file.c_str(), width_, height_, 3, rgb_.data(), 3 * width_) != 0;
  }

 private:
  std::uint8_t* at(int x, int y) {
    return &rgb_[std::size_t{3} *
                 (static_cast<std::size_t>(y) * static_cast<std::size_t>(width_) + static_cast<std::size_t>(x))];
  }

  void fill(int left, int top, int right, int bottom, const Color& color) {
    for (int y = std::max(top, 0); y <= std::min(bottom, height_ - 1); ++y)
      for (int x = std::max(left, 0); x <= std::min(right, width_ - 1); ++x) std::copy_n(color.data(), 3, at(x, y));
  }

  [[nodiscard]] int column(double x) const { return static_cast<int>(std::lround(x * width_ / film_.image_width)); }
  [[nodiscard]] int row(double y) const { return static_cast<int>(std::lround(y * height_ / film_.image_height)); }

  [[nodiscard]] float sample(const std::vector<float>& image, int x, int y) const {
    const auto place = [&](int pixel, std::uint32_t first, std::uint32_t count) {
      const float at = (static_cast<float>(pixel) + 0.5F) / static_cast<float>(scale_) - 0.5F;
      return static_cast<float>(first) + std::clamp(at, 0.0F, static_cast<float>(count - 1));
    };
    const float column = place(x, film_.left, film_.width);
    const float line = place(y, film_.top, film_.height);
    const auto left = static_cast<std::uint32_t>(column);
    const auto top = static_cast<std::uint32_t>(line);
    const std::uint32_t right = std::min(left + 1, input_width_ - 1);
    const std::uint32_t bottom = std::min(top + 1, input_height_ - 1);
    const auto value = [&](std::uint32_t i, std::uint32_t j) { return image[std::size_t{i} * input_width_ + j]; };
    const float u = column - static_cast<float>(left);
    const float v = line - static_cast<float>(top);
    return (1 - v) * ((1 - u) * value(top, left) + u * value(top, right)) +
           v * ((1 - u) * value(bottom, left) + u * value(bottom, right));
  }

  std::uint32_t input_width_;
  std::uint32_t input_height_;
  msloc_summary film_;
  std::uint32_t scale_;
  int width_;
  int height_;
  std::vector<std::uint8_t> rgb_;
};

void draw(Picture& picture, const Finding& finding, const std::vector<float>& map, const Color& color) {
  for (const msloc_box& box : finding.boxes) picture.tint(box, map, finding.map_threshold, color);
  for (const msloc_box& box : finding.boxes) {
    char text[96];
    std::snprintf(text, sizeof text, "%.80s %.2f", finding.label.c_str(), box.score);
    picture.outline(box, color);
    picture.label(box, text, color);
  }
}

}  // namespace

Expected<bool> write_overlay(msloc_edge::Localizer& localizer, const msloc_edge::Result& result,
                             const std::string& file) {
  const auto model = localizer.model();
  if (!model) return model.error();
  const auto input = localizer.input();
  if (!input) return input.error();
  Picture picture(*model, result.film);
  picture.film(*input);
  for (std::uint32_t k = 0; k < result.findings.size(); ++k) {
    if (!result.findings[k].positive) continue;
    const auto map = localizer.map(k);
    if (!map) return map.error();
    draw(picture, result.findings[k], *map, kColors[k % kColors.size()]);
  }
  if (!picture.write(file))
    return msloc_edge::Error{MSLOC_INTERNAL, file + ": expected to write it, got no such right or room; name another"};
  return true;
}
