// Peaks and regions on the device, behind the network: msloc_edge/backends/tensorrt/locate.py.
#pragma once

#include <vector>

#include "cuda_stream.h"
#include "device_kernels.h"
#include "geometry.h"
#include "regions.h"

namespace msloc {

/// Finds peaks and regions in the class maps of one film at a time. All memory is made by the constructor.
class DeviceLocator {
 public:
  /// Makes one memory for both sides where `shared`. What it puts on the stream at once, relevance and thresholds, is
  /// done when this returns.
  DeviceLocator(const Bundle& bundle, LocateKernels kernels, cuda::Stream stream, bool shared);

  /// The place of the next film in the model's input; the film before has to be done.
  void set_place(const Geometry& geometry) noexcept;

  /// Puts the search on a stream, and the copies of what it finds.
  ///
  /// cams  addresses of the class maps [K, h_s, w_s] of each stage on the device
  void enqueue(const std::array<const void*, 4>& cams, cuda::Stream stream);

  /// Reads what was found, when the stream has done it.
  void read() noexcept;

  /// The highest pixel of the map of class k within the film's place, and its regions; null: it has more than the
  /// device keeps.
  [[nodiscard]] const Located* located(int k) const noexcept;

 private:
  [[nodiscard]] int tile_h() const noexcept;
  [[nodiscard]] std::size_t parts() const noexcept;

  LocateKernels kernels_;
  Size input_;
  int classes_;
  cuda::Owned<void*> maps_, keys_, runs_;
  cuda::Buffer relevance_, thresholds_, content_;     // in
  cuda::Buffer values_, positions_, counts_, table_;  // out
  Geometry place_{};
  std::vector<Located> located_;
};

}  // namespace msloc
