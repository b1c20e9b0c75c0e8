#include "gate.h"

#include <algorithm>
#include <cmath>
#include <functional>

namespace msloc {
namespace {

constexpr double kEnlarged = 2;
constexpr float kEnd = 1.0F / 512;
constexpr double kMinContrast = 0.02;

/// Calls take(i, weight) for the pixels of `length` that cell j of kSide overlaps, with their shares of it.
template <class Take>
void each_overlap(int length, int j, const Take& take) noexcept {
  const double cell = static_cast<double>(length) / InputGate::kSide;
  const double first = j * cell;
  const double last = (j + 1) * cell;
  for (int i = static_cast<int>(first); i < length && i < last; ++i)
    take(i, (std::min(last, i + 1.0) - std::max(first, static_cast<double>(i))) / cell);
}

/// Convolves cells [in, side, side] at every second one, zeros around them: out [out, side / 2, side / 2].
void halve(const GateLayer& layer, const float* cells, int side, float* out) noexcept {
  const auto outputs = static_cast<int>(layer.bias.size());
  const auto inputs = static_cast<int>(layer.weights.size()) / (9 * outputs);
  const float* weights = layer.weights.data();
  for (int k = 0; k < outputs; ++k, weights += 9 * inputs)
    for (int y = 0; y < side; y += 2)
      for (int x = 0; x < side; x += 2) {
        float sum = layer.bias[static_cast<std::size_t>(k)];
        for (int c = 0; c < inputs; ++c)
          for (int i = std::max(y - 1, 0); i <= y + 1; ++i)
            for (int j = std::max(x - 1, 0); j <= x + 1; ++j)
              sum += weights[(c * 3 + i - y + 1) * 3 + j - x + 1] * cells[(c * side + i) * side + j];
        *out++ = std::max(sum, 0.0F);
      }
}

}  // namespace

InputGate::InputGate(std::vector<GateLayer> convolutions, GateLayer head, std::array<double, kSeen> thresholds,
                     double clipped)
    : convolutions_(std::move(convolutions)), head_(std::move(head)), thresholds_(thresholds), clipped_(clipped) {
  std::size_t largest = std::size_t{kSide} * kSide;
  std::size_t side = kSide;
  for (const GateLayer& layer : convolutions_) {
    side /= 2;
    largest = std::max(largest, layer.bias.size() * side * side);
  }
  cells_.resize(largest);
  next_.resize(largest);
}

std::uint32_t InputGate::judge(const float* input, const Geometry& geometry) noexcept {
  const float* film = input + geometry.top * geometry.input.width + geometry.left;
  make_thumbnail(film, geometry);
  const std::array<double, 1 + kSeen> chances = probabilities();
  const auto likeliest = static_cast<std::size_t>(std::max_element(chances.begin() + 1, chances.end()) - chances.begin());
  std::uint32_t warnings = 0;
  if (chances[0] < thresholds_[likeliest - 1]) warnings |= kReasons[likeliest - 1].warning;
  std::ptrdiff_t ends = 0;
  for (int y = 0; y < geometry.height; ++y) {
    const float* row = film + y * geometry.input.width;
    ends += std::count_if(row, row + geometry.width, [](float v) { return v < kEnd || v > 1 - kEnd; });
  }
  if (static_cast<double>(ends) > clipped_ * geometry.width * geometry.height) warnings |= MSLOC_WARNING_CLIPPED;
  const double enlarged = std::min(static_cast<double>(geometry.width) / geometry.image.width,
                                   static_cast<double>(geometry.height) / geometry.image.height);
  if (enlarged > kEnlarged) warnings |= MSLOC_WARNING_LOW_RESOLUTION;
  return warnings;
}

void InputGate::make_thumbnail(const float* film, const Geometry& geometry) noexcept {
  float* cell = cells_.data();
  float* row = next_.data();  // the sums of a row of cells, as wide as the input: in pieces of kSide cells
  constexpr std::size_t kCells = std::size_t{kSide} * kSide;
  std::fill_n(cell, kCells, 0.0F);
  for (int y = 0; y < kSide; ++y, cell += kSide)
    each_overlap(geometry.height, y, [&](int i, double down) noexcept {
      const float* pixels = film + i * geometry.input.width;
      for (int x = 0; x < kSide; ++x) {
        double sum = 0;
        each_overlap(geometry.width, x,
                     [&](int j, double across) noexcept { sum += across * static_cast<double>(pixels[j]); });
        row[x] = static_cast<float>(down * sum);
      }
      std::transform(cell, cell + kSide, row, cell, std::plus<>());
    });
  double mean = 0;
  double squares = 0;
  for (std::size_t i = 0; i < kCells; ++i) mean += static_cast<double>(cells_[i]) / kCells;
  for (std::size_t i = 0; i < kCells; ++i) squares += std::pow(static_cast<double>(cells_[i]) - mean, 2) / kCells;
  const double contrast = std::max(std::sqrt(squares), kMinContrast);
  for (std::size_t i = 0; i < kCells; ++i)
    cells_[i] = static_cast<float>((static_cast<double>(cells_[i]) - mean) / contrast);
}

std::array<double, 1 + kSeen> InputGate::probabilities() noexcept {
  int side = kSide;
  for (const GateLayer& layer : convolutions_) {
    halve(layer, cells_.data(), side, next_.data());
    cells_.swap(next_);
    side /= 2;
  }
  std::array<double, 1 + kSeen> chances{};
  const std::size_t inputs = head_.weights.size() / chances.size();
  for (std::size_t k = 0; k < chances.size(); ++k) {
    auto logit = static_cast<double>(head_.bias[k]);
    for (std::size_t i = 0; i < inputs; ++i) logit += static_cast<double>(head_.weights[k * inputs + i] * cells_[i]);
    chances[k] = logit;
  }
  const double highest = *std::max_element(chances.begin(), chances.end());
  double sum = 0;
  for (double& chance : chances) sum += chance = std::exp(chance - highest);
  for (double& chance : chances) chance /= sum;
  return chances;
}

}  // namespace msloc
