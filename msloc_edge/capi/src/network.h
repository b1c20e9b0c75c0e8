// A plan of TensorRT with all that it needs to run: buffers on both sides, a stream, a CUDA graph.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cuda_stream.h"
#include "device_kernels.h"
#include "device_locator.h"
#include "device_window.h"
#include "nvinfer.h"
#include "plan.h"

namespace msloc {

/// A plan for single films, ready to run. It is made, used and ended while its device's context is current.
class Network {
 public:
  /// Makes buffers of one memory for both sides where `shared`. Throws Failure MSLOC_BACKEND_FAILED, and Error of the
  /// driver.
  ///
  /// kernels  window films and locate what is in their maps; none: the host does
  Network(const Plan& plan, const PlanFor& wanted, bool shared, std::optional<DeviceKernels> kernels);

  /// Windows a film into the image, on both sides, and waits; false without kernels. Throws as `run`.
  bool preprocess(const Film& film, const float* table, const Geometry& geometry);
  /// Takes the image through, and waits. Throws Failure MSLOC_BACKEND_FAILED, and Error of the driver.
  void run();

  [[nodiscard]] float* image() const noexcept { return buffers_.front().host(); }
  [[nodiscard]] const float* logits() const noexcept { return buffers_[1].host(); }
  [[nodiscard]] const float* cams(int stage) const noexcept {
    return buffers_[static_cast<std::size_t>(stage) + 2].host();
  }
  [[nodiscard]] const Located* located(int k) const noexcept { return locator_ ? locator_->located(k) : nullptr; }
  /// The reason why each film is enqueued by itself; empty: it is one launch of a CUDA graph.
  [[nodiscard]] const std::string& eager_because() const noexcept { return eager_because_; }

 private:
  using Shape = std::vector<std::int64_t>;

  [[nodiscard]] nvinfer1::ICudaEngine* deserialise(const Plan& plan, const PlanFor& wanted);
  void set_image(const Shape& image, const std::string& command);
  void give_scratch();
  void bind(const std::string& name, const Shape& expected, bool shared);
  void bind_heatmap(const Shape& expected);
  void check(const std::string& name, const Shape& expected) const;
  void set_address(const std::string& name, void* address);
  void enqueue();

  Logger log_;
  cuda::Owned<cuda::Stream> stream_;
  std::unique_ptr<nvinfer1::IRuntime> runtime_;
  std::unique_ptr<nvinfer1::ICudaEngine> engine_;
  cuda::Owned<void*> scratch_{nullptr, nullptr};  // of the context's layers: it outlives the context
  std::unique_ptr<nvinfer1::IExecutionContext> context_;
  std::vector<cuda::Buffer> buffers_;  // image, logits, the class maps of each stage
  cuda::Owned<void*> heatmap_{nullptr, nullptr};
  std::optional<DeviceWindow> window_;
  std::optional<DeviceLocator> locator_;
  cuda::Owned<cuda::Event> windowed_;
  cuda::Owned<cuda::Graph> graph_{nullptr, nullptr};
  std::string eager_because_;
  cuda::Drain drain_;  // the last one: the others are what the work on the stream uses
};

}  // namespace msloc
