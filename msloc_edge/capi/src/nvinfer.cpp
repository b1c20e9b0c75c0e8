#include "nvinfer.h"

#include <dlfcn.h>

#include <algorithm>
#include <cstdio>

#include "failure.h"

namespace msloc {

void Logger::log(Severity severity, const char* message) noexcept {
  if (severity > Severity::kERROR) return;
  const std::lock_guard<std::mutex> lock(mutex_);
  std::snprintf(last_.data(), last_.size(), "%s", message);
  std::replace_if(
      last_.begin(), last_.end(), [](char c) { return c == '\n' || c == '\r'; }, ' ');
}

std::string Logger::last_error() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return last_.data();
}

const NvInfer& NvInfer::get() {
  static const NvInfer library;
  return library;
}

NvInfer::NvInfer() {
  const std::string name = "libnvinfer.so." + std::to_string(NV_TENSORRT_MAJOR);
  handle_ = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle_ == nullptr)
    throw Failure(MSLOC_BACKEND_DEVICE, "tensorrt: expected TensorRT on this machine, found no " + name +
                                            "; install it, or choose another engine");
  for (const char* part : {"getInferLibMajorVersion", "getInferLibMinorVersion", "getInferLibPatchVersion"})
    version_ += (version_.empty() ? "" : ".") + std::to_string(function<std::int32_t()>(part)());
}

nvinfer1::IRuntime* NvInfer::make_runtime(Logger& logger) const {
  auto* const make = function<void*(void*, std::int32_t)>("createInferRuntime_INTERNAL");
  return static_cast<nvinfer1::IRuntime*>(make(static_cast<nvinfer1::ILogger*>(&logger), NV_TENSORRT_VERSION));
}

template <typename Function>
Function* NvInfer::function(const char* name) const {
  void* const found = dlsym(handle_, name);
  if (found == nullptr)
    throw Failure(MSLOC_BACKEND_FAILED, std::string("tensorrt: expected NVIDIA's TensorRT, got a library without ") +
                                            name + "; install TensorRT again");
  return reinterpret_cast<Function*>(found);
}

}  // namespace msloc
