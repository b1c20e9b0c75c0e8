// A checked film: stored pixels whose every access is in bounds.
#pragma once

#include <cstddef>
#include <cstdint>

#include "geometry.h"
#include "msloc_edge.h"

namespace msloc {

inline constexpr int kMinSide = 32;  // as msloc_edge.imaging.raster.MIN_SIDE

struct Film {
  const void* data = nullptr;  // on the host, or on the engine's device
  std::ptrdiff_t stride = 0;   // bytes
  Size size{};
  bool wide = false;  // 16-bit samples
  int bits = 0;       // stored
  bool on_device = false;
  void* stream = nullptr;  // of the device, on which the samples are written

  /// Bytes of a row without what is between rows.
  [[nodiscard]] std::size_t row_bytes() const noexcept {
    return static_cast<std::size_t>(size.width) * (wide ? sizeof(std::uint16_t) : sizeof(std::uint8_t));
  }

  template <class Sample>
  [[nodiscard]] const Sample* row(int y) const noexcept {
    return reinterpret_cast<const Sample*>(static_cast<const char*>(data) + y * stride);
  }
};

/// Width and height of a film as its caller or its header states them, of a refused film as well.
struct StatedSize {
  std::uint32_t width = 0;
  std::uint32_t height = 0;
};

/// Refuses a size. Throws Failure (MSLOC_TOO_SMALL, MSLOC_TOO_LARGE).
void check_size(const StatedSize& size, std::uint64_t max_pixels);

/// Checks pixels, of a struct of this header's size. Throws Failure (MSLOC_ARGUMENT, MSLOC_TOO_SMALL, MSLOC_TOO_LARGE).
Film check_film(const msloc_pixels& pixels, std::uint64_t max_pixels);

}  // namespace msloc
