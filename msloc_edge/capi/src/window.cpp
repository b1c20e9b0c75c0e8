#include "window.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "failure.h"

namespace msloc {
namespace {

[[noreturn]] void bad_window(const std::string& sentence) { throw Failure(MSLOC_BAD_WINDOW, sentence); }

void check_window(const msloc_pixels& pixels) {
  if (!std::isfinite(pixels.window_center) || !std::isfinite(pixels.window_width))
    bad_window("expected a window of finite numbers, got NaN or infinity; look at window_center and window_width");
  const bool linear = pixels.voi == MSLOC_VOI_LINEAR;
  if (linear ? pixels.window_width < 1 : pixels.window_width <= 0)
    bad_window("expected a window_width of " + std::string(linear ? "at least 1" : "more than 0") + ", got " +
               std::to_string(pixels.window_width) + "; fix it or use MSLOC_VOI_FULL_RANGE");
}

void check_rescale(const msloc_pixels& pixels) {
  if (!std::isfinite(pixels.rescale_slope) || pixels.rescale_slope == 0 || !std::isfinite(pixels.rescale_intercept))
    bad_window("expected a finite rescale with a slope other than 0, got slope " +
               std::to_string(pixels.rescale_slope) + " and intercept " + std::to_string(pixels.rescale_intercept) +
               "; begin with MSLOC_PIXELS_INIT");
}

void copy_table(const msloc_pixels& pixels, int count, float* table) {
  if (pixels.table == nullptr || pixels.table_size != static_cast<std::uint32_t>(count))
    bad_window("expected a table of 2**bits_stored = " + std::to_string(count) + " numbers, got " +
               (pixels.table == nullptr ? "none" : std::to_string(pixels.table_size)) + "; set table and table_size");
  const float* end = pixels.table + count;
  const float* bad = std::find_if_not(pixels.table, end, [](float v) { return v >= 0 && v <= 1; });
  if (bad != end)
    bad_window("expected brightness in [0, 1], got " + std::to_string(*bad) + " at entry " +
               std::to_string(bad - pixels.table) + " of the table; scale it");
  std::copy(pixels.table, end, table);
}

template <class Shown>
void fill(const msloc_pixels& pixels, int bits, float* table, const Shown& shown) {
  const bool inverted = pixels.photometric == MSLOC_MONOCHROME1;
  for (int pattern = 0; pattern < 1 << bits; ++pattern) {
    const double stored = stored_value(pattern, bits, pixels.is_signed != 0);
    const double brightness = shown(stored * pixels.rescale_slope + pixels.rescale_intercept);
    table[pattern] = static_cast<float>(inverted ? 1 - brightness : brightness);
  }
}

}  // namespace

double Window::operator()(double value) const noexcept {
  if (function == MSLOC_VOI_SIGMOID)
    return 1 / (1 + std::exp(std::clamp(-4 * (value - center) / width, -700.0, 700.0)));
  const double middle = function == MSLOC_VOI_LINEAR ? center - 0.5 : center;
  const double across = function == MSLOC_VOI_LINEAR ? width - 1 : width;
  if (across == 0) return value > middle ? 1 : 0;
  return std::clamp((value - middle) / across + 0.5, 0.0, 1.0);
}

void make_table(const msloc_pixels& pixels, int bits, float* table) {
  if (pixels.voi == MSLOC_VOI_TABLE) return copy_table(pixels, 1 << bits, table);
  check_rescale(pixels);
  if (pixels.voi == MSLOC_VOI_FULL_RANGE) {
    const bool is_signed = pixels.is_signed != 0;
    const int low = is_signed ? -(1 << (bits - 1)) : 0;
    const double ends[] = {low * pixels.rescale_slope + pixels.rescale_intercept,
                           (low + (1 << bits) - 1) * pixels.rescale_slope + pixels.rescale_intercept};
    const double black = std::min(ends[0], ends[1]);
    const double range = std::max(ends[0], ends[1]) - black;
    return fill(pixels, bits, table, [=](double value) { return (value - black) / range; });
  }
  check_window(pixels);
  fill(pixels, bits, table, Window{pixels.voi, pixels.window_center, pixels.window_width});
}

}  // namespace msloc
