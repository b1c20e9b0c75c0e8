#include "letterbox.h"

#include <algorithm>
#include <cstdint>

namespace msloc {
namespace {

constexpr float kConstant = 1e-5F;       // averages of one brightness differ by rounding only
constexpr double kPolarityLimit = -0.3;  // msloc_edge.imaging.preprocess.POLARITY_LIMIT says why
constexpr int kBandsPerWorker = 4;       // small enough that a worker which is late holds up little

double mean(const float* input, int stride, int x0, int y0, int width, int height) noexcept {
  double sum = 0;
  for (int y = y0; y < y0 + height; ++y)
    for (int x = x0; x < x0 + width; ++x) sum += input[y * stride + x];
  return sum / (static_cast<double>(width) * height);
}

}  // namespace

Letterbox::Letterbox(Size input, int workers)
    : rows_(input.height),
      columns_(input.width),
      scratch_(static_cast<std::size_t>(workers) * 2 * static_cast<std::size_t>(input.width)) {}

void Letterbox::run(const Film& film, const float* table, const Geometry& geometry, Pool& pool,
                    float* output) noexcept {
  const auto set = geometry.enlarges() ? &Axis::set_linear : &Axis::set_area;
  (rows_.*set)(geometry.image.height, geometry.height);
  (columns_.*set)(geometry.image.width, geometry.width);
  std::fill_n(output, geometry.input.width * geometry.input.height, 0.0F);
  if (film.wide)
    run_as<std::uint16_t>(film, table, geometry, pool, output);
  else
    run_as<std::uint8_t>(film, table, geometry, pool, output);
}

template <class Sample>
void Letterbox::run_as(const Film& film, const float* table, const Geometry& geometry, Pool& pool,
                       float* output) noexcept {
  const unsigned mask = (1U << film.bits) - 1;
  const auto row = [&](int i) noexcept {
    return [pixels = film.row<Sample>(i), table, mask](int j) noexcept { return table[pixels[j] & mask]; };
  };
  const int width = geometry.input.width;
  float* film_at = output + geometry.top * width + geometry.left;
  const int bands = std::min(geometry.height, kBandsPerWorker * pool.size());
  auto band = [&](int worker, int job) noexcept {
    const int top = job * geometry.height / bands;
    const int bottom = (job + 1) * geometry.height / bands;
    resample(row, rows_, columns_, {0, top, geometry.width, bottom - top}, film_at + top * width, width,
             scratch_.data() + 2 * worker * width);
  };
  pool.run(bands, band);
}

Look look_at(const float* input, const Geometry& geometry) noexcept {
  const int stride = geometry.input.width;
  const int width = geometry.width;
  const int height = geometry.height;
  const float* film = input + geometry.top * stride + geometry.left;
  float low = film[0];
  float high = film[0];
  for (int y = 0; y < height; ++y) {
    const auto [least, most] = std::minmax_element(film + y * stride, film + y * stride + width);
    low = std::min(low, *least);
    high = std::max(high, *most);
  }
  const int across = std::max(1, width / 8);
  const int down = std::max(1, height / 8);
  const double corners =
      (mean(film, stride, 0, 0, across, down) + mean(film, stride, width - across, 0, across, down)) / 2;
  const int x0 = 2 * width / 5;
  const int y0 = height / 3;
  const double mediastinum = mean(film, stride, x0, y0, width - 2 * x0, height - 2 * y0);
  return {high - low < kConstant, mediastinum - corners < kPolarityLimit};
}

}  // namespace msloc
