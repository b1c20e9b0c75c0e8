#include "network.h"

#include <algorithm>
#include <utility>

#include "failure.h"

namespace msloc {
namespace {

using nvinfer1::Dims;
using Shape = std::vector<std::int64_t>;

constexpr const char* kImage = "image";
constexpr const char* kHeatmap = "heatmap";

[[noreturn]] void fail(const std::string& sentence) { throw Failure(MSLOC_BACKEND_FAILED, "tensorrt: " + sentence); }

Shape shape_of(const Dims& dims) { return {dims.d, dims.d + std::clamp(dims.nbDims, 0, Dims::MAX_DIMS)}; }

std::size_t count_of(const Shape& shape) {
  std::size_t count = 1;
  for (const std::int64_t side : shape) count *= static_cast<std::size_t>(side);
  return count;
}

std::string text_of(const Shape& shape) {
  std::string text;
  for (const std::int64_t side : shape) text += (text.empty() ? "" : ", ") + std::to_string(side);
  return "[" + text + "]";
}

}  // namespace

Network::Network(const Plan& plan, const PlanFor& wanted, bool shared, std::optional<DeviceKernels> kernels)
    : stream_(cuda::make_stream()),
      runtime_(NvInfer::get().make_runtime(log_)),
      engine_(deserialise(plan, wanted)),
      context_(engine_->createExecutionContext(nvinfer1::ExecutionContextAllocationStrategy::kUSER_MANAGED)),
      windowed_(cuda::make_event()),
      drain_(stream_.get()) {
  if (!context_) fail("no memory for " + plan.file + " on the device (" + log_.last_error() + "); free some");
  const Bundle& bundle = wanted.bundle;
  const std::int64_t classes = bundle.class_count();
  const Shape image{1, 1, bundle.input.height, bundle.input.width};
  set_image(image, export_command(wanted));
  give_scratch();
  bind(kImage, image, shared);
  bind("logits", {1, classes}, shared);
  for (std::size_t stage = 0; stage < bundle.stages.size(); ++stage)
    bind("cams_" + std::to_string(stage + 1), {1, classes, bundle.stages[stage].height, bundle.stages[stage].width},
         shared);
  bind_heatmap({1, classes, bundle.input.height, bundle.input.width});
  if (kernels) {
    window_.emplace(std::move(kernels->window), shared);
    locator_.emplace(bundle, std::move(kernels->locate), stream_.get(), shared);
  }
  enqueue();  // once before the capture: what TensorRT allocates at first, a graph may not
  cuda::synchronize(stream_.get());
  try {
    graph_ = cuda::capture(stream_.get(), [&] { enqueue(); });
  } catch (const std::exception& reason) {
    eager_because_ = reason.what();
  }
}

bool Network::preprocess(const Film& film, const float* table, const Geometry& geometry) {
  if (!window_) return false;
  locator_->set_place(geometry);
  try {
    const cuda::Buffer& image = buffers_.front();
    window_->enqueue(film, table, geometry, image.device(), stream_.get());
    image.copy_out(stream_.get());
    cuda::record(windowed_.get(), stream_.get());
    cuda::reach(windowed_.get());
  } catch (...) {
    const cuda::Drain rest(stream_.get());  // what was put there reads memory of this film
    throw;
  }
  return true;
}

void Network::run() {
  if (graph_)
    cuda::launch(graph_.get(), stream_.get());
  else
    enqueue();
  cuda::synchronize(stream_.get());
  if (locator_) locator_->read();
}

nvinfer1::ICudaEngine* Network::deserialise(const Plan& plan, const PlanFor& wanted) {
  const std::string title = "TensorRT " + wanted.version;
  if (!runtime_) fail(title + " cannot start on this device (" + log_.last_error() + "); update its driver");
  if (plan.version_compatible) runtime_->setEngineHostCodeAllowed(true);
  const std::string& plugin = plan.plugin_library;
  if (!plugin.empty() && runtime_->getPluginRegistry().loadLibrary(plugin.c_str()) == nullptr)
    fail(title + " cannot load the plugin " + plugin + " of " + plan.file + " (" + log_.last_error() +
         "); build it for this machine");
  auto* const engine = runtime_->deserializeCudaEngine(plan.data.data(), plan.data.size());
  if (engine == nullptr)
    fail(title + " does not take " + plan.file + " (" + log_.last_error() + "); make it here: " +
         export_command(wanted));
  return engine;
}

void Network::set_image(const Shape& image, const std::string& command) {
  Dims dims{static_cast<std::int32_t>(image.size()), {}};
  std::copy(image.begin(), image.end(), dims.d);
  if (!context_->setInputShape(kImage, dims))
    fail("expected a plan that takes " + text_of(image) + " as image, got another (" + log_.last_error() +
         "); make it here: " + command);
}

/// Gives the layers the memory that one film needs, not a whole batch of the plan's.
void Network::give_scratch() {
  const std::size_t needed = context_->updateDeviceMemorySizeForShapes();
  const std::size_t bytes = needed > 0 ? needed : static_cast<std::size_t>(engine_->getDeviceMemorySizeV2());
  scratch_ = cuda::allocate(bytes / sizeof(float) + 1);
  context_->setDeviceMemoryV2(scratch_.get(), static_cast<std::int64_t>(bytes));
}

/// Gives a tensor that the bundle speaks of a buffer of its own.
void Network::bind(const std::string& name, const Shape& expected, bool shared) {
  check(name, expected);
  buffers_.emplace_back(count_of(expected), shared);
  set_address(name, buffers_.back().device());
}

/// Gives the heatmap of a plan that has one a place where nobody reads it: this library fuses only the maps it needs.
void Network::bind_heatmap(const Shape& expected) {
  for (std::int32_t at = 0; at < engine_->getNbIOTensors(); ++at) {
    const std::string name = engine_->getIOTensorName(at);
    if (context_->getTensorAddress(name.c_str()) != nullptr) continue;
    if (name != kHeatmap) fail("expected a plan with the tensors of the bundle, got " + name + " as well");
    check(name, expected);
    heatmap_ = cuda::allocate(count_of(expected));
    set_address(name, heatmap_.get());
  }
}

void Network::check(const std::string& name, const Shape& expected) const {
  const char* const tensor = name.c_str();
  const Shape found = shape_of(context_->getTensorShape(tensor));
  const bool there = engine_->getTensorIOMode(tensor) != nvinfer1::TensorIOMode::kNONE;
  const bool float32 = engine_->getTensorDataType(tensor) == nvinfer1::DataType::kFLOAT;
  if (found != expected || !float32)
    fail("expected a plan with " + name + " of float32 " + text_of(expected) + ", got " +
         (there ? text_of(found) : "none") + (float32 ? "" : " of another type") + "; build it of this bundle");
}

void Network::set_address(const std::string& name, void* address) {
  if (!context_->setTensorAddress(name.c_str(), address))
    fail("the address of " + name + " is not taken: " + log_.last_error());
}

/// Puts one film on the stream: in, unless the kernels have put it there, through, out.
void Network::enqueue() {
  if (!window_) buffers_.front().copy_in(stream_.get());
  if (!context_->enqueueV3(reinterpret_cast<cudaStream_t>(stream_.get())))
    fail("enqueueV3 failed: " + log_.last_error());
  if (locator_) {
    const auto cams = buffers_.begin() + 2;
    locator_->enqueue({cams[0].device(), cams[1].device(), cams[2].device(), cams[3].device()}, stream_.get());
  }
  for (auto output = buffers_.begin() + 1; output != buffers_.end(); ++output) output->copy_out(stream_.get());
}

}  // namespace msloc
