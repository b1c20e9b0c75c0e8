#include "cuda_driver.h"

#include <dlfcn.h>

#include <string>

namespace msloc::cuda {
namespace {

constexpr int kMajor = 75;  // CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR
constexpr int kMinor = 76;

/// Never closed: kernels stay loaded, and the process has it open for CUDA's runtime anyway.
void* driver() {
  static void* const handle = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    throw NoDevice("expected NVIDIA's driver on this machine, found no libcuda.so.1; install the driver");
  }
  return handle;
}

}  // namespace

void* address(const char* name) {
  void* const found = dlsym(driver(), name);
  if (found == nullptr) {
    throw Error(std::string("expected a driver of CUDA 12 or newer, got one without ") + name + "; update the driver");
  }
  return found;
}

void check(Result result, const char* call) {
  if (result == 0) {
    return;
  }
  static auto* const text_of = function<Result(Result, const char**)>("cuGetErrorString");
  const char* text = nullptr;
  if (text_of(result, &text) != 0 || text == nullptr) {
    text = "unknown error";
  }
  throw Error(std::string("CUDA's driver: ") + call + " failed: " + text + " (" + std::to_string(result) + ")");
}

int attribute(int which, Device device) {
  static auto* const get = function<Result(int*, int, Device)>("cuDeviceGetAttribute");
  int value = 0;
  check(get(&value, which, device), "cuDeviceGetAttribute");
  return value;
}

int sm_of(Device device) { return 10 * attribute(kMajor, device) + attribute(kMinor, device); }

int current_sm() {
  static auto* const current = function<Result(Device*)>("cuCtxGetDevice");
  Device device = 0;
  check(current(&device), "cuCtxGetDevice");
  return sm_of(device);
}

Library load(const void* image) {
  static auto* const load_data =
      function<Result(Library*, const void*, int*, void**, unsigned, int*, void**, unsigned)>("cuLibraryLoadData");
  Library library = nullptr;
  check(load_data(&library, image, nullptr, nullptr, 0, nullptr, nullptr, 0), "cuLibraryLoadData");
  return library;
}

Kernel find(Library library, const char* entry) {
  static auto* const get_kernel = function<Result(Kernel*, Library, const char*)>("cuLibraryGetKernel");
  Kernel kernel = nullptr;
  check(get_kernel(&kernel, library, entry), "cuLibraryGetKernel");
  return kernel;
}

void launch(Kernel kernel, const Grid& grid, unsigned threads, unsigned shared, Stream stream, void** arguments) {
  static auto* const put = function<Result(Kernel, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,
                                           Stream, void**, void**)>("cuLaunchKernel");
  check(put(kernel, grid.x, grid.y, grid.z, threads, 1, 1, shared, stream, arguments, nullptr), "cuLaunchKernel");
}

}  // namespace msloc::cuda
