#include "resample.h"

#include <algorithm>
#include <cmath>

namespace msloc {
namespace {

constexpr double kSliver = 1e-3;  // cv2 leaves out a smaller part of a pixel

}  // namespace

void Axis::set_area(int source, int target) noexcept {
  const double scale = static_cast<double>(source) / target;
  middles_ = static_cast<int>(scale) - 1;  // a span touches at most two pixels more than it holds
  for (int j = 0; j < target; ++j) {
    const double low = j * scale;
    const double high = low + scale;
    const double cell = std::min(scale, source - low);
    const int end = std::min(static_cast<int>(high), source - 1);
    const int begin = std::min(static_cast<int>(std::ceil(low)), end);  // begin .. end - 1 are inside as a whole
    const auto whole = static_cast<float>(1 / cell);
    const auto before = static_cast<float>(begin - low > kSliver ? (begin - low) / cell : 0);
    const auto behind = static_cast<float>(high - end > kSliver ? std::min({high - end, 1.0, cell}) / cell : 0);
    const auto weight = [&](int i) { return i < begin ? before : i < end ? whole : i == end ? behind : 0.0F; };
    const int first = before > 0 ? begin - 1 : begin;
    const int next = first + middles_ + 1;
    spans_[static_cast<std::size_t>(j)] = {
        first, std::min(next, source - 1),       std::min(next + 1, source - 1),          weight(first),
        whole, next < source ? weight(next) : 0, next + 1 < source ? weight(next + 1) : 0};
  }
}

void Axis::set_linear(int source, int target) noexcept {
  set_between(source, target, static_cast<double>(source) / target, -0.5);
}

void Axis::set_knots(int source, int target) noexcept {
  set_between(source, target, (source - 1.0) / target, 0);
}

/// The centre of output pixel j is source index (j + 0.5) scale + shift, clamped at the edge.
void Axis::set_between(int source, int target, double scale, double shift) noexcept {
  middles_ = 0;
  for (int j = 0; j < target; ++j) {
    const double centre = std::clamp((j + 0.5) * scale + shift, 0.0, source - 1.0);
    const int low = static_cast<int>(centre);
    const auto part = static_cast<float>(centre - low);
    spans_[static_cast<std::size_t>(j)] = {low, low, std::min(low + 1, source - 1), 1 - part, 0, 0, part};
  }
}

}  // namespace msloc
