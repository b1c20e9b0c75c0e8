// TensorRT 10.3 to 11.x: NVIDIA's GPUs, from a plan that Python has built on this machine. As
// msloc_edge/backends/tensorrt/backend.py, but nothing is built here.
#include <algorithm>
#include <array>
#include <filesystem>
#include <optional>

#include "cuda_stream.h"
#include "device_kernels.h"
#include "engine.h"
#include "failure.h"
#include "network.h"
#include "nvinfer.h"
#include "plan.h"

namespace msloc {
namespace {

/// A device, and a plan of the cache or a file: cuda:0,fp16.
struct Place {
  int ordinal;
  std::string precision;  // empty with a file
  std::string file;
};

bool ends_with(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

Place place_of(const std::string& device) {
  const std::string where = device.substr(0, device.find(','));
  const std::string plan = where == device ? "fp32" : device.substr(where.size() + 1);
  const std::string ordinal = where == "cuda" ? "0" : where.rfind("cuda:", 0) == 0 ? where.substr(5) : "";
  const std::array<const char*, 3> precisions{"fp32", "fp16", "int8"};
  const bool precision = std::find(precisions.begin(), precisions.end(), plan) != precisions.end();
  const bool digits = ordinal.find_first_not_of("0123456789") == std::string::npos;
  if (ordinal.empty() || ordinal.size() > 3 || !digits || (!precision && !ends_with(plan, ".plan")))
    throw Failure(MSLOC_BACKEND_DEVICE,
                  "tensorrt: expected a device such as cuda:0, cuda:0,fp16 or cuda:0,/path/model.plan, got '" + device +
                      "'; choose one");
  return {std::stoi(ordinal), precision ? plan : "", precision ? "" : plan};
}

/// The folder of the kernels: beside that of the engine cache, as in Python's cache, or beside the plan's file.
std::string kernel_folder(const std::string& cache_folder, const std::string& file) {
  const bool cached = !cache_folder.empty();
  std::filesystem::path beside = std::filesystem::u8path(cached ? cache_folder : file);
  if (!beside.has_filename()) beside = beside.parent_path();  // it ended in a slash
  return (beside.parent_path() / "kernels").u8string();
}

class TensorRtEngine : public Engine {
 public:
  TensorRtEngine(const Bundle& bundle, const Place& place, const std::string& cache_folder) : context_(place.ordinal) {
    const PlanFor wanted{bundle, NvInfer::get().version(), context_.sm(), place.precision};
    const Plan plan = place.file.empty() ? find_plan(cache_folder, wanted) : read_plan(place.file, wanted);
    description_ = "tensorrt " + wanted.version + " cuda:" + std::to_string(place.ordinal) + " " + plan.precision;
    const cuda::Current current(context_);
    network_.emplace(plan, wanted, context_.integrated(), find_kernels(cache_folder, place.file, wanted));
    if (host_because_.empty()) description_ += ", films on the device";
    if (!network_->eager_because().empty()) description_ += ", no CUDA graph: " + network_->eager_because();
  }
  TensorRtEngine(const TensorRtEngine&) = delete;
  TensorRtEngine& operator=(const TensorRtEngine&) = delete;
  TensorRtEngine(TensorRtEngine&&) = delete;
  TensorRtEngine& operator=(TensorRtEngine&&) = delete;
  ~TensorRtEngine() override {
    try {
      const cuda::Current current(context_);
      network_.reset();
    } catch (const Error&) {  // the driver has ended before, as a process ends, and everything in it
    }
  }

  float* input() noexcept override { return network_->image(); }

  bool preprocess(const Film& film, const float* table, const Geometry& geometry) override {
    return on_a_film([&] { return network_->preprocess(film, table, geometry); });
  }

  void infer() override {
    on_a_film([&] {
      network_->run();
      return true;
    });
  }

  [[nodiscard]] const float* logits() const noexcept override { return network_->logits(); }
  [[nodiscard]] const float* cams(int stage) const noexcept override { return network_->cams(stage); }
  [[nodiscard]] const Located* located(int k) const noexcept override { return network_->located(k); }
  [[nodiscard]] const std::string& description() const noexcept override { return description_; }
  [[nodiscard]] std::string host_because() const override { return host_because_; }

 private:
  /// The kernels of the steps around the network; none, and the reason, where the host has to do these.
  std::optional<DeviceKernels> find_kernels(const std::string& cache_folder, const std::string& file,
                                            const PlanFor& wanted) {
    try {
      return load_kernels(kernel_folder(cache_folder, file), wanted.bundle, wanted.sm);
    } catch (const KernelUnusable& reason) {
      host_because_ = reason.what();
    } catch (const Error& reason) {
      host_because_ = reason.what();
    }
    return {};
  }

  template <class Work>
  bool on_a_film(const Work& work) {
    try {
      const cuda::Current current(context_);
      return work();
    } catch (const std::runtime_error& error) {  // Error, KernelUnusable
      throw Failure(MSLOC_BACKEND_FAILED, std::string("tensorrt failed on a film: ") + error.what());
    }
  }

  cuda::PrimaryContext context_;
  std::optional<Network> network_;
  std::string description_;
  std::string host_because_;
};

}  // namespace

std::unique_ptr<Engine> make_tensorrt_engine(const Bundle& bundle, const EngineOptions& options) {
  const Place place = place_of(options.device.empty() ? "cuda" : options.device);
  if (place.file.empty() && options.cache_folder.empty())
    throw Failure(MSLOC_ARGUMENT,
                  "tensorrt: expected cache_folder, the folder engines of Python's cache, or a device such as "
                  "cuda:0,/path/model.plan, got neither; set one");
  try {
    return std::make_unique<TensorRtEngine>(bundle, place, options.cache_folder);
  } catch (const cuda::NoDevice& error) {
    throw Failure(MSLOC_BACKEND_DEVICE, std::string("tensorrt: ") + error.what());
  } catch (const std::runtime_error& error) {  // Error, KernelUnusable
    throw Failure(MSLOC_BACKEND_FAILED, std::string("tensorrt cannot load the plan: ") + error.what());
  }
}

}  // namespace msloc
