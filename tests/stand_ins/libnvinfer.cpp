// A stand-in for libnvinfer.so: TensorRT's interfaces over the memory of the stand-in driver.
//
// A plan is 32 bytes of header as TensorRT's, then lines: "name NAME", "batch MIN MAX", and for each tensor
// "in|out NAME float|half SIDES", where a first side of -1 is the batch. From the image x [H, W] it computes
//     logits[k]       = (k + 1) mean(x)
//     cams_s[k, i, j] = (k + s) mean of the cell (i, j) of x
//     heatmap[k]      = k
// or what whoever stand_in_compute names writes.
// STAND_IN_TRT_FAIL is the method that fails. Runs are put on the stream by cuLaunchHostFunc, so that graphs hold them.
#include <dlfcn.h>

#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "unexpected.h"

using namespace nvinfer1;

namespace {

int enqueues = 0;
int objects = 0;
std::string plan_name;
std::string plugin;
bool host_code = false;
std::int64_t scratch = 0;  // bytes that a context was given for its layers
ILogger* logger = nullptr;
using Computing = void (*)(const char* tensor, const void* image, void* out);
Computing compute = nullptr;

template <typename Function>
Function* driver(const char* name) {
  return reinterpret_cast<Function*>(dlsym(dlopen("libcuda.so.1", RTLD_NOW), name));
}

/// What TensorRT's own code would need: the context of its device.
void needs_context(const char* method) {
  if (driver<void*()>("stand_in_current")() == nullptr) unexpected(method);
}

bool works(const char* method) {
  const char* const failing = std::getenv("STAND_IN_TRT_FAIL");
  if (failing == nullptr || std::strcmp(failing, method) != 0) return true;
  logger->log(ILogger::Severity::kERROR, (std::string(method) + " was made\nto fail").c_str());
  logger->log(ILogger::Severity::kINFO, "nothing of it");
  return false;
}

std::int64_t scratch_of(std::int64_t batch) { return 1001 * batch; }

struct Counted {
  explicit Counted(const char* what) : name(what) { ++objects; }
  ~Counted() {
    needs_context(name);
    --objects;
  }
  const char* name;
};

struct Tensor {
  TensorIOMode mode;
  std::string name;
  DataType type;
  Dims dims;
};

struct Blueprint {
  std::vector<Tensor> tensors;
  std::int64_t least = 1, most = 1;

  explicit Blueprint(const std::string& text) {
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) {
      std::istringstream words(line);
      std::string first, name, type;
      words >> first;
      if (first == "name") words >> plan_name;
      if (first == "batch") words >> least >> most;
      if (first != "in" && first != "out") continue;
      words >> name >> type;
      Tensor tensor{first == "in" ? TensorIOMode::kINPUT : TensorIOMode::kOUTPUT, name,
                    type == "half" ? DataType::kHALF : DataType::kFLOAT, {}};
      while (words >> tensor.dims.d[tensor.dims.nbDims]) ++tensor.dims.nbDims;
      tensors.push_back(tensor);
    }
  }

  const Tensor* find(const std::string& name) const {
    for (const Tensor& tensor : tensors)
      if (tensor.name == name) return &tensor;
    return nullptr;
  }
};

/// One run, with the addresses that it had when it was enqueued.
struct Run {
  const Blueprint& blueprint;
  std::map<std::string, void*> addresses;

  void operator()() const {
    const Dims image = blueprint.find("image")->dims;
    const auto* const x = static_cast<const float*>(addresses.at("image"));
    for (const Tensor& tensor : blueprint.tensors) {
      if (tensor.mode == TensorIOMode::kINPUT) continue;
      if (compute != nullptr) {
        compute(tensor.name.c_str(), x, addresses.at(tensor.name));
        continue;
      }
      auto* const out = static_cast<float*>(addresses.at(tensor.name));
      const bool maps = tensor.dims.nbDims == 4;
      const std::int64_t height = maps ? tensor.dims.d[2] : 1, width = maps ? tensor.dims.d[3] : 1;
      const bool cams = tensor.name.rfind("cams_", 0) == 0;
      const auto offset = cams ? std::stoi(tensor.name.substr(5)) : 1;
      for (std::int64_t k = 0; k < tensor.dims.d[1]; ++k)
        for (std::int64_t i = 0; i < height; ++i)
          for (std::int64_t j = 0; j < width; ++j)
            out[(k * height + i) * width + j] =
                tensor.name == "heatmap" ? static_cast<float>(k)
                                         : static_cast<float>(static_cast<double>(k + offset) *
                                                              mean(x, image, height, width, i, j));
    }
  }

  static double mean(const float* x, const Dims& image, std::int64_t height, std::int64_t width, std::int64_t i,
                     std::int64_t j) {
    const std::int64_t rows = image.d[2] / height, columns = image.d[3] / width;
    double sum = 0;
    for (std::int64_t y = i * rows; y < (i + 1) * rows; ++y)
      for (std::int64_t at = j * columns; at < (j + 1) * columns; ++at)
        sum += static_cast<double>(x[y * image.d[3] + at]);
    return sum / static_cast<double>(rows * columns);
  }
};

class StandInContext final : public IExecutionContext, public UnexpectedVExecutionContext {
 public:
  explicit StandInContext(const Blueprint& blueprint) : blueprint_(blueprint) { mImpl = this; }

  bool setInputShape(const char* name, const Dims& dims) noexcept override {
    const Tensor* const tensor = blueprint_.find(name);
    if (!works("setInputShape") || tensor == nullptr || tensor->dims.nbDims != dims.nbDims) return false;
    for (int at = 1; at < dims.nbDims; ++at)
      if (dims.d[at] != tensor->dims.d[at]) return false;
    batch_ = dims.d[0];
    return tensor->dims.d[0] == batch_ ||
           (tensor->dims.d[0] == -1 && blueprint_.least <= batch_ && batch_ <= blueprint_.most);
  }
  Dims getTensorShape(const char* name) const noexcept override {
    const Tensor* const tensor = blueprint_.find(name);
    Dims dims{};
    dims.nbDims = -1;
    if (tensor != nullptr) dims = tensor->dims;
    if (tensor != nullptr && dims.d[0] == -1) dims.d[0] = batch_;
    return dims;
  }
  std::size_t updateDeviceMemorySizeForShapes() noexcept override {
    return works("updateDeviceMemorySizeForShapes") ? scratch_of(batch_) : 0;
  }
  void setDeviceMemoryV2(void* memory, std::int64_t size) noexcept override {
    scratch_ = memory;
    scratch = size;
  }
  bool setTensorAddress(const char* name, void* data) noexcept override {
    if (!works("setTensorAddress") || data == nullptr) return false;
    addresses_[name] = data;
    return true;
  }
  const void* getTensorAddress(const char* name) const noexcept override {
    const auto found = addresses_.find(name);
    return found == addresses_.end() ? nullptr : found->second;
  }
  bool enqueueV3(cudaStream_t stream) noexcept override {
    needs_context("enqueueV3");
    if (!works(asked_++ == 1 ? "second enqueueV3" : "enqueueV3") || addresses_.size() != blueprint_.tensors.size()) return false;
    if (scratch < scratch_of(batch_)) return false;
    std::memset(scratch_, 0xff, static_cast<std::size_t>(scratch));
    ++enqueues;
    runs_.push_back({blueprint_, addresses_});
    const auto call = [](void* run) { (*static_cast<Run*>(run))(); };
    return driver<int(cudaStream_t, void (*)(void*), void*)>("cuLaunchHostFunc")(stream, call, &runs_.back()) == 0;
  }

 private:
  Counted counted_{"~IExecutionContext"};
  const Blueprint& blueprint_;
  std::int64_t batch_ = 0;
  std::map<std::string, void*> addresses_;
  std::deque<Run> runs_;
  int asked_ = 0;
  void* scratch_ = nullptr;
};

class StandInEngine final : public ICudaEngine, public UnexpectedVCudaEngine {
 public:
  explicit StandInEngine(const std::string& text) : blueprint_(text) { mImpl = this; }
  IExecutionContext* createExecutionContext(ExecutionContextAllocationStrategy strategy) noexcept override {
    needs_context("createExecutionContext");
    if (strategy != ExecutionContextAllocationStrategy::kUSER_MANAGED) unexpected("another strategy");
    return works("createExecutionContext") ? new StandInContext(blueprint_) : nullptr;
  }
  std::int64_t getDeviceMemorySizeV2() const noexcept override { return scratch_of(blueprint_.most); }
  std::int32_t getNbIOTensors() const noexcept override { return static_cast<std::int32_t>(blueprint_.tensors.size()); }
  const char* getIOTensorName(std::int32_t at) const noexcept override {
    return blueprint_.tensors.at(static_cast<std::size_t>(at)).name.c_str();
  }
  DataType getTensorDataType(const char* name) const noexcept override {
    const Tensor* const tensor = blueprint_.find(name);
    return tensor == nullptr ? DataType::kFLOAT : tensor->type;
  }
  TensorIOMode getTensorIOMode(const char* name) const noexcept override {
    const Tensor* const tensor = blueprint_.find(name);
    return tensor == nullptr ? TensorIOMode::kNONE : tensor->mode;
  }

 private:
  Counted counted_{"~ICudaEngine"};
  Blueprint blueprint_;
};

class StandInRegistry final : public UnexpectedIPluginRegistry {
 public:
  PluginLibraryHandle loadLibrary(const AsciiChar* path) noexcept override {
    plugin = path;
    return works("loadLibrary") ? this : nullptr;
  }
};

class StandInRuntime final : public IRuntime, public UnexpectedVRuntime {
 public:
  StandInRuntime() { mImpl = this; }
  ICudaEngine* deserializeCudaEngine(const void* blob, std::size_t size) noexcept override {
    needs_context("deserializeCudaEngine");
    if (!works("deserializeCudaEngine")) return nullptr;
    return new StandInEngine(std::string(static_cast<const char*>(blob), size).substr(32));
  }
  void setEngineHostCodeAllowed(bool allowed) noexcept override { host_code = allowed; }
  IPluginRegistry& getPluginRegistry() noexcept override { return registry_; }

 private:
  Counted counted_{"~IRuntime"};
  StandInRegistry registry_;
};

}  // namespace

#define STAND_IN_API extern "C" __attribute__((visibility("default")))

STAND_IN_API void* createInferRuntime_INTERNAL(void* given, std::int32_t version) noexcept {
  logger = static_cast<ILogger*>(given);
  plugin.clear();
  host_code = false;
  if (version != NV_TENSORRT_VERSION || !works("createInferRuntime")) return nullptr;
  return static_cast<IRuntime*>(new StandInRuntime);
}
STAND_IN_API std::int32_t getInferLibMajorVersion() noexcept { return NV_TENSORRT_MAJOR; }
STAND_IN_API std::int32_t getInferLibMinorVersion() noexcept { return NV_TENSORRT_MINOR; }
STAND_IN_API std::int32_t getInferLibPatchVersion() noexcept { return NV_TENSORRT_PATCH; }

STAND_IN_API void stand_in_compute(Computing computing) { compute = computing; }
STAND_IN_API int stand_in_enqueues() { return enqueues; }
STAND_IN_API int stand_in_objects() { return objects; }
STAND_IN_API const char* stand_in_plan() { return plan_name.c_str(); }
STAND_IN_API const char* stand_in_plugin() { return plugin.c_str(); }
STAND_IN_API std::int64_t stand_in_scratch() { return scratch; }
STAND_IN_API int stand_in_host_code() { return host_code; }
