// The highest of some values.
#pragma once

#include <algorithm>
#include <limits>

namespace msloc {

/// The higher of two values that are numbers; the first where the second is none.
inline float higher(float a, float b) noexcept { return b > a ? b : a; }

/// The highest of `count` values that are numbers; -inf where none is. Lanes side by side, so that the compiler takes
/// one vector instruction for several: of 16 or fewer gcc makes variables, and one instruction for each.
inline float highest(const float* values, int count) noexcept {
  constexpr int kLanes = 32;
  float best[kLanes];
  std::fill_n(best, kLanes, -std::numeric_limits<float>::infinity());
  const auto take = [&best](const float* from, int lanes) noexcept {
    for (int lane = 0; lane < lanes; ++lane) best[lane] = higher(best[lane], from[lane]);
  };
  int i = 0;
  for (; i + kLanes <= count; i += kLanes) take(values + i, kLanes);
  take(values + i, count - i);
  for (int half = kLanes / 2; half > 0; half /= 2) take(best + half, half);
  return best[0];
}

}  // namespace msloc
