// Window and letterbox on the device: msloc_edge/backends/tensorrt/window.py.
#pragma once

#include <optional>

#include "cuda_stream.h"
#include "device_kernels.h"
#include "film.h"

namespace msloc {

/// Windows one film at a time. Its memory grows with the largest film.
class DeviceWindow {
 public:
  /// Makes one memory for both sides where `shared`.
  DeviceWindow(WindowKernels kernels, bool shared);

  /// Puts the work on a film on a stream: stored pixels and table in, the model's input to an address on the device.
  /// What was put there before has to be done, as its page-locked memory is used again. Samples on the device are
  /// waited for there, and read until this work is done.
  void enqueue(const Film& film, const float* table, const Geometry& geometry, void* output, cuda::Stream stream);

 private:
  [[nodiscard]] const void* put(const Film& film, cuda::Stream stream);
  [[nodiscard]] const void* put_on_device(const Film& film, cuda::Stream stream);
  void make_room(std::size_t bytes);

  WindowKernels kernels_;
  bool shared_;
  cuda::Buffer table_;
  cuda::Owned<cuda::Event> written_;    // the caller's samples
  std::optional<cuda::Buffer> pixels_;  // rows packed
};

}  // namespace msloc
