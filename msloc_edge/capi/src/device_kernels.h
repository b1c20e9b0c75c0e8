// The kernels of the whole way on the device, loaded: msloc_edge/backends/tensorrt/kernels.py.
#pragma once

#include <array>
#include <string>

#include "bundle.h"
#include "compiled.h"
#include "cuda_stream.h"

namespace msloc {

/// A kernel that is loaded, for as long as this lives.
class DeviceKernel {
 public:
  /// Throws Error where the driver does not take it, KernelUnusable where it has more arguments than any of ours.
  explicit DeviceKernel(Compiled facts);

  [[nodiscard]] const Compiled& facts() const noexcept { return facts_; }

  /// Puts a launch on a stream, and does not wait. `values` has every argument by name, and what the grid is made of.
  /// Throws KernelUnusable, Error.
  void launch(Values values, cuda::Stream stream) const;

 private:
  static constexpr std::size_t kMaxArguments = 16;

  Compiled facts_;
  cuda::Owned<cuda::Library> library_;
  cuda::Kernel kernel_;
};

/// Kernels that window a film: stored pixels of 8 and of 16 bits, shrunk and enlarged.
using WindowKernels = std::array<std::array<DeviceKernel, 2>, 2>;

/// maps: of all classes, with keys of their peaks; peaks: their last step; runs, regions: of what is above.
struct LocateKernels {
  DeviceKernel maps, peaks, runs, regions;
};

struct DeviceKernels {
  WindowKernels window;
  LocateKernels locate;
};

/// Loads the kernels for a bundle's maps on a device: its own, else the portable ones. Throws KernelUnusable where they
/// are not in the folder, or the bundle's maps are not what they compute; Error where the driver does not take them.
DeviceKernels load_kernels(const std::string& folder, const Bundle& bundle, int sm);

/// The address of memory as a value of a launch.
inline std::uint64_t address(const void* memory) noexcept { return reinterpret_cast<std::uintptr_t>(memory); }

}  // namespace msloc
