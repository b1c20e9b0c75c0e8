// TensorRT's library, opened at run time, and the last error that it spoke of.
#pragma once

#include <NvInferRuntime.h>

#include <array>
#include <mutex>
#include <string>

namespace msloc {

/// Keeps the last error that TensorRT spoke of, from whichever thread.
class Logger final : public nvinfer1::ILogger {
 public:
  void log(Severity severity, const char* message) noexcept override;
  /// One line.
  [[nodiscard]] std::string last_error() const;

 private:
  mutable std::mutex mutex_;
  std::array<char, 256> last_{"it gives no reason"};
};

/// libnvinfer.so of the headers' major version: between two of them TensorRT's interfaces change.
///
/// It is not linked, so that the same libmsloc_edge runs its other engines where there is no TensorRT. Never closed.
class NvInfer {
 public:
  /// Throws Failure MSLOC_BACKEND_DEVICE where it is not on this machine.
  static const NvInfer& get();

  /// Major, minor, patch, such as 10.3.0.
  [[nodiscard]] const std::string& version() const noexcept { return version_; }
  /// The caller's to delete; null when TensorRT cannot start. The logger has to outlive it.
  [[nodiscard]] nvinfer1::IRuntime* make_runtime(Logger& logger) const;

 private:
  NvInfer();
  template <typename Function>
  Function* function(const char* name) const;

  void* handle_;
  std::string version_;
};

}  // namespace msloc
