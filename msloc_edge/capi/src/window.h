// The display transform of a film as one table: lut[bit pattern] = brightness in [0, 1], as msloc_edge.types.Frame has
// it.
//
//     stored bits -> stored value -> rescale -> window -> polarity        DICOM PS3.3 C.7.6.3, C.11.1, C.11.2
#pragma once

#include <cstdint>

#include "msloc_edge.h"

namespace msloc {

/// The stored value of a bit pattern of `bits` bits: PS3.5 section 8.1.1.
inline int stored_value(int pattern, int bits, bool is_signed) noexcept {
  return is_signed && pattern >= 1 << (bits - 1) ? pattern - (1 << bits) : pattern;
}

/// A window, one value to [0, 1]: PS3.3 C.11.2.1.2.1 LINEAR, C.11.2.1.3.1 SIGMOID, C.11.2.1.3.2 LINEAR_EXACT.
struct Window {
  std::uint32_t function;  // MSLOC_VOI_LINEAR, _LINEAR_EXACT or _SIGMOID
  double center;
  double width;

  [[nodiscard]] double operator()(double value) const noexcept;
};

/// Fills table[2**bits] from a checked film's window, rescale, polarity, or from its own table.
/// Throws Failure MSLOC_BAD_WINDOW for numbers that cannot be.
void make_table(const msloc_pixels& pixels, int bits, float* table);

}  // namespace msloc
