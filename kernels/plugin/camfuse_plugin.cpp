// The node CamFuse of ../../export/graphs.py as a plugin for TensorRT 10.3 to 11: fuse_cams on TensorRT's tensors.
//
//     inputs      cams_1..cams_4 [B, K, h_s, w_s] fp32 or fp16, relevance [K, 4] fp32
//     attributes  height, width: of the map
//     output      heatmap [B, K, height, width] in the type of the class maps
//
// TensorRT finds it through getCreators when its registry loads the library: nothing of nvinfer is linked.
#include <NvInferRuntime.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <exception>
#include <memory>
#include <new>
#include <string>
#include <string_view>

#include "camfuse_launch.h"

namespace msloc {
namespace {

using namespace nvinfer1;

constexpr const char* kName = "CamFuse";
constexpr const char* kVersion = "1";
constexpr const char* kNamespace = "msloc";

constexpr std::int32_t kInputs = kStages + 1;
constexpr std::int32_t kOutputs = 1;

/// Of the fields inside an engine; another layout gets another number, and an older library then refuses it.
constexpr std::int32_t kLayout = 1;

std::atomic<ILoggerFinder*> logger_finder{nullptr};

void log_error(const char* sentence) noexcept {
  ILoggerFinder* const finder = logger_finder.load();
  ILogger* const logger = finder != nullptr ? finder->findLogger() : nullptr;
  if (logger != nullptr) {
    logger->log(ILogger::Severity::kERROR, sentence);
  }
}

/// 0, or TensorRT's -1 with the reason in its log: no exception leaves the library.
template <typename Work>
std::int32_t guarded(const Work& work) noexcept {
  try {
    work();
    return 0;
  } catch (const std::exception& error) {
    log_error(error.what());
    return -1;
  }
}

void expect(bool holds, const char* sentence) {
  if (!holds) {
    throw Error(std::string("CamFuse: ") + sentence);
  }
}

void expect_inputs(std::int32_t count) {
  expect(count == kInputs, "expected the class maps of 4 stages and relevance; run the plain graph for other models");
}

/// Cells are counted in 32 bits by the kernel; TensorRT counts them in 64.
std::int32_t side(std::int64_t value) {
  expect(value <= INT32_MAX, "expected smaller tensors");
  return static_cast<std::int32_t>(value);
}

/// From dimensions that are all known, by the number of the input. Throws Error where they do not fit together.
template <typename DimsOf>
Shape shape_of(const DimsOf& dims_of, std::int32_t inputs, Size map) {
  expect_inputs(inputs);
  const Dims& relevance = dims_of(kInputs - 1);
  expect(relevance.nbDims == 2 && relevance.d[1] == kStages, "expected relevance of shape [K, 4]");
  Shape shape{side(dims_of(0).d[0]), side(relevance.d[0]), {}, map};
  for (std::int32_t stage = 0; stage < kInputs - 1; ++stage) {
    const Dims& cams = dims_of(stage);
    expect(cams.nbDims == 4 && cams.d[0] == shape.batch && cams.d[1] == shape.classes,
           "expected class maps of shape [B, K, h, w], with one B and the K of relevance");
    shape.stages.at(static_cast<std::size_t>(stage)) = {side(cams.d[2]), side(cams.d[3])};
  }
  check(shape);
  return shape;
}

class CamFuse final : public IPluginV3, public IPluginV3OneCore, public IPluginV3OneBuild, public IPluginV3OneRuntime {
 public:
  explicit CamFuse(Size map) : map_(map) {}

  IPluginCapability* getCapabilityInterface(PluginCapabilityType type) noexcept override {
    switch (type) {
      case PluginCapabilityType::kCORE:
        return static_cast<IPluginV3OneCore*>(this);
      case PluginCapabilityType::kBUILD:
        return static_cast<IPluginV3OneBuild*>(this);
      case PluginCapabilityType::kRUNTIME:
        return static_cast<IPluginV3OneRuntime*>(this);
    }
    return nullptr;
  }

  IPluginV3* clone() noexcept override { return new (std::nothrow) CamFuse(map_); }

  const char* getPluginName() const noexcept override { return kName; }
  const char* getPluginVersion() const noexcept override { return kVersion; }
  const char* getPluginNamespace() const noexcept override { return kNamespace; }

  std::int32_t getNbOutputs() const noexcept override { return kOutputs; }

  std::int32_t getOutputDataTypes(DataType* outputs, std::int32_t /*output_count*/, const DataType* inputs,
                                  std::int32_t input_count) const noexcept override {
    return guarded([&] {
      expect_inputs(input_count);
      outputs[0] = inputs[0];
    });
  }

  std::int32_t getOutputShapes(const DimsExprs* inputs, std::int32_t input_count, const DimsExprs* /*shape_inputs*/,
                               std::int32_t /*shape_input_count*/, DimsExprs* outputs, std::int32_t /*output_count*/,
                               IExprBuilder& builder) noexcept override {
    return guarded([&] {
      expect_inputs(input_count);
      expect(inputs[0].nbDims == 4, "expected class maps of shape [B, K, h, w]");
      outputs[0].nbDims = 4;
      outputs[0].d[0] = inputs[0].d[0];
      outputs[0].d[1] = inputs[0].d[1];
      outputs[0].d[2] = builder.constant(map_.height);
      outputs[0].d[3] = builder.constant(map_.width);
    });
  }

  bool supportsFormatCombination(std::int32_t at, const DynamicPluginTensorDesc* tensors, std::int32_t input_count,
                                 std::int32_t output_count) noexcept override {
    if (input_count != kInputs || output_count != kOutputs || at < 0 || at >= kInputs + kOutputs) {
      return false;
    }
    const auto type = [&](std::int32_t tensor) { return tensors[tensor].desc.type; };
    const bool known = at == 0             ? type(0) == DataType::kFLOAT || type(0) == DataType::kHALF
                       : at == kInputs - 1 ? type(at) == DataType::kFLOAT
                                           : type(at) == type(0);
    return known && tensors[at].desc.format == TensorFormat::kLINEAR;
  }

  /// With the largest shapes of the optimisation profile.
  std::int32_t configurePlugin(const DynamicPluginTensorDesc* in, std::int32_t inputs,
                               const DynamicPluginTensorDesc* /*out*/, std::int32_t /*outputs*/) noexcept override {
    return guarded([&] { shape_of([&](std::int32_t at) -> const Dims& { return in[at].max; }, inputs, map_); });
  }

  std::int32_t onShapeChange(const PluginTensorDesc* in, std::int32_t inputs, const PluginTensorDesc* /*out*/,
                             std::int32_t /*outputs*/) noexcept override {
    return guarded([&] { shape_now(in, inputs); });
  }

  std::int32_t enqueue(const PluginTensorDesc* in, const PluginTensorDesc* /*out*/, const void* const* inputs,
                       void* const* outputs, void* /*workspace*/, cudaStream_t stream) noexcept override {
    return guarded([&] {
      Buffers buffers{{}, inputs[kStages], outputs[0]};
      for (std::size_t stage = 0; stage < kStages; ++stage) {
        buffers.cams.at(stage) = inputs[stage];
      }
      const Type type = in[0].type == DataType::kHALF ? Type::fp16 : Type::fp32;
      fuse_cams(shape_now(in, kInputs), type, buffers, reinterpret_cast<cuda::Stream>(stream));
    });
  }

  IPluginV3* attachToContext(IPluginResourceContext* /*context*/) noexcept override { return clone(); }

  const PluginFieldCollection* getFieldsToSerialize() noexcept override { return &serialized_; }

 private:
  Shape shape_now(const PluginTensorDesc* in, std::int32_t inputs) const {
    return shape_of([&](std::int32_t at) -> const Dims& { return in[at].dims; }, inputs, map_);
  }

  Size map_;
  std::array<PluginField, 3> fields_{PluginField("layout", &kLayout, PluginFieldType::kINT32, 1),
                                     PluginField("height", &map_.height, PluginFieldType::kINT32, 1),
                                     PluginField("width", &map_.width, PluginFieldType::kINT32, 1)};
  PluginFieldCollection serialized_{static_cast<std::int32_t>(fields_.size()), fields_.data()};
};

/// One int32 of a node or an engine, as TensorRT's parser of ONNX gives an int. Throws Error where there is none.
std::int32_t number(const PluginFieldCollection& fields, std::string_view name) {
  for (std::int32_t at = 0; at < fields.nbFields; ++at) {
    const PluginField& field = fields.fields[at];
    if (field.name == name && field.type == PluginFieldType::kINT32 && field.length == 1 && field.data != nullptr) {
      return *static_cast<const std::int32_t*>(field.data);
    }
  }
  throw Error("CamFuse: expected the attribute " + std::string(name) + " as one int32");
}

class Creator final : public IPluginCreatorV3One {
 public:
  IPluginV3* createPlugin(const char* /*name*/, const PluginFieldCollection* fields,
                          TensorRTPhase phase) noexcept override {
    IPluginV3* made = nullptr;
    guarded([&] {
      expect(fields != nullptr, "expected attributes, got none");
      expect(phase == TensorRTPhase::kBUILD || number(*fields, "layout") == kLayout,
             "this engine is of another version of the plugin; build it again");
      const Size map{number(*fields, "height"), number(*fields, "width")};
      expect(map.height > 0 && map.width > 0, "expected height and width above 0");
      made = std::make_unique<CamFuse>(map).release();
    });
    return made;
  }

  const PluginFieldCollection* getFieldNames() noexcept override { return &names_; }
  const char* getPluginName() const noexcept override { return kName; }
  const char* getPluginVersion() const noexcept override { return kVersion; }
  const char* getPluginNamespace() const noexcept override { return kNamespace; }

 private:
  /// What TensorRT's parser of ONNX looks for in the node.
  std::array<PluginField, 2> fields_{PluginField("height", nullptr, PluginFieldType::kINT32, 1),
                                     PluginField("width", nullptr, PluginFieldType::kINT32, 1)};
  PluginFieldCollection names_{static_cast<std::int32_t>(fields_.size()), fields_.data()};
};

}  // namespace
}  // namespace msloc

extern "C" {

__attribute__((visibility("default"))) void setLoggerFinder(nvinfer1::ILoggerFinder* finder) {
  msloc::logger_finder = finder;
}

__attribute__((visibility("default"))) nvinfer1::IPluginCreatorInterface* const* getCreators(std::int32_t& count) {
  static msloc::Creator creator;
  static const std::array<nvinfer1::IPluginCreatorInterface*, 1> creators{&creator};
  count = static_cast<std::int32_t>(creators.size());
  return creators.data();
}

}  // extern "C"
