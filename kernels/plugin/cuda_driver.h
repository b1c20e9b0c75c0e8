// CUDA's driver, found at run time: nothing of CUDA is linked, and none of its headers is needed. For the plugin and
// the TensorRT engine of the C library (msloc_edge/capi).
#pragma once

#include <stdexcept>

namespace msloc {

/// One sentence: what was expected, what came, what to do.
class Error : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

namespace cuda {

using Result = int;  // CUresult
using Device = int;
using Library = struct LibraryHandle*;
using Kernel = struct KernelHandle*;  // a CUkernel, which cuLaunchKernel takes as a CUfunction from CUDA 12 on
using Stream = struct StreamHandle*;  // a cudaStream_t is the same

/// There is no driver on this machine, or no device.
class NoDevice : public Error {
  using Error::Error;
};

/// The driver's function of this name. Throws NoDevice without a driver, Error where it is too old to have it.
void* address(const char* name);

/// The same with its type, such as Result(unsigned).
template <typename Function>
Function* function(const char* name) {
  return reinterpret_cast<Function*>(address(name));
}

/// Throws Error with the driver's own words unless the result is success.
void check(Result result, const char* call);

/// A property of a device, by its number in CUdevice_attribute.
int attribute(int which, Device device);

/// Compute capability as one number: 87 for an Orin.
int sm_of(Device device);

/// The same of the current context's device.
int current_sm();

/// Loads a cubin, or PTX that ends in a zero byte, for every device and context; the caller's to unload, or to keep.
Library load(const void* image);

/// The kernel `entry` of a library, for as long as that is loaded.
Kernel find(Library library, const char* entry);

/// Blocks along x, y, z.
struct Grid {
  unsigned x = 1, y = 1, z = 1;
};

/// Puts one launch on a stream, and does not wait.
///
/// threads    of a block
/// shared     bytes of dynamic shared memory
/// arguments  the address of each argument
void launch(Kernel kernel, const Grid& grid, unsigned threads, unsigned shared, Stream stream, void** arguments);

}  // namespace cuda
}  // namespace msloc
