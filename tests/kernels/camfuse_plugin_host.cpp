// Drives libmsloc_camfuse.so as TensorRT does, through the interfaces of its headers, on stand-ins for the rest.
//
//     camfuse_plugin_host PLUGIN        exit 0: all as expected; 1: the line that was not so is named
//     camfuse_plugin_host PLUGIN fail   the driver refuses the launch: enqueue has to say so and return
//
// libcuda.so.1 is stand_ins/libcuda_camfuse.c.
#include <NvInferRuntime.h>
#include <dlfcn.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <memory>
#include <string>
#include <vector>

using namespace nvinfer1;

#define EXPECT(condition)                                          \
  do {                                                             \
    if (!(condition)) {                                            \
      std::fprintf(stderr, "line %d: %s\n", __LINE__, #condition); \
      std::exit(1);                                                \
    }                                                              \
  } while (false)

namespace {

class Logger final : public ILogger, public ILoggerFinder {
 public:
  void log(Severity, const char* message) noexcept override { last = message; }
  ILogger* findLogger() override { return this; }
  std::string last;
};

class StandInDimension final : public IDimensionExpr, apiv::VDimensionExpr {
 public:
  explicit StandInDimension(std::int64_t value) : value_(value) { mImpl = this; }
  bool isConstant() const override { return true; }
  std::int64_t getConstantValue() const override { return value_; }
  bool isSizeTensor() const override { return false; }

 private:
  std::int64_t value_;
};

class StandInExprBuilder final : public IExprBuilder, apiv::VExprBuilder {
 public:
  StandInExprBuilder() { mImpl = this; }
  const IDimensionExpr* constant(std::int64_t value) override { return &made_.emplace_back(value); }
  const IDimensionExpr* operation(DimensionOperation, const IDimensionExpr&, const IDimensionExpr&) override {
    return nullptr;
  }
  const IDimensionExpr* declareSizeTensor(std::int32_t, const IDimensionExpr&, const IDimensionExpr&) override {
    return nullptr;
  }

 private:
  std::deque<StandInDimension> made_;
};

constexpr std::int32_t kInputs = 5;
constexpr std::array<std::array<std::int32_t, 2>, 4> kStages{{{24, 16}, {12, 8}, {6, 4}, {3, 2}}};
constexpr std::int32_t kClasses = 3;
constexpr std::int32_t kHeight = 96;
constexpr std::int32_t kWidth = 64;

PluginTensorDesc tensor(DataType type, std::vector<std::int64_t> shape) {
  PluginTensorDesc desc{};
  desc.type = type;
  desc.format = TensorFormat::kLINEAR;
  desc.dims.nbDims = static_cast<std::int32_t>(shape.size());
  for (std::size_t at = 0; at < shape.size(); ++at) {
    desc.dims.d[at] = static_cast<decltype(desc.dims.d[0] + 0)>(shape[at]);
  }
  return desc;
}

/// Inputs and output of the node.
std::vector<PluginTensorDesc> tensors(DataType type, std::int64_t batch) {
  std::vector<PluginTensorDesc> made;
  for (const auto& stage : kStages) {
    made.push_back(tensor(type, {batch, kClasses, stage[0], stage[1]}));
  }
  made.push_back(tensor(DataType::kFLOAT, {kClasses, 4}));
  made.push_back(tensor(type, {batch, kClasses, kHeight, kWidth}));
  return made;
}

std::vector<DynamicPluginTensorDesc> dynamic(const std::vector<PluginTensorDesc>& largest) {
  std::vector<DynamicPluginTensorDesc> made;
  for (const PluginTensorDesc& desc : largest) {
    made.push_back({desc, desc.dims, desc.dims, desc.dims});
  }
  return made;
}

IPluginCreatorV3One* creator_of(const char* path, Logger& logger) {
  void* const library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  EXPECT(library != nullptr);
  reinterpret_cast<void (*)(ILoggerFinder*)>(dlsym(library, "setLoggerFinder"))(&logger);
  std::int32_t count = 0;
  auto* const creators =
      reinterpret_cast<IPluginCreatorInterface* const* (*)(std::int32_t&)>(dlsym(library, "getCreators"))(count);
  EXPECT(count == 1);
  EXPECT(std::string(creators[0]->getInterfaceInfo().kind) == "PLUGIN CREATOR_V3ONE");
  return static_cast<IPluginCreatorV3One*>(creators[0]);
}

using Plugin = std::unique_ptr<IPluginV3>;

Plugin create(IPluginCreatorV3One& creator, std::vector<PluginField> fields, TensorRTPhase phase) {
  const PluginFieldCollection collection{static_cast<std::int32_t>(fields.size()), fields.data()};
  return Plugin(creator.createPlugin("heatmap_fuse", &collection, phase));
}

template <typename Capability>
Capability& capability(IPluginV3& plugin, PluginCapabilityType type) {
  auto* const found = static_cast<Capability*>(plugin.getCapabilityInterface(type));
  EXPECT(found != nullptr);
  return *found;
}

void check_creation(IPluginCreatorV3One& creator, Logger& logger) {
  EXPECT(std::string(creator.getPluginName()) == "CamFuse");
  EXPECT(std::string(creator.getPluginVersion()) == "1");
  EXPECT(std::string(creator.getPluginNamespace()) == "msloc");
  const PluginFieldCollection& names = *creator.getFieldNames();
  EXPECT(names.nbFields == 2 && std::string(names.fields[0].name) == "height" &&
         std::string(names.fields[1].name) == "width");

  const std::int32_t one = 1;
  const std::int32_t none = 0;
  const float real = 1;
  const PluginField height("height", &one, PluginFieldType::kINT32, 1);
  const PluginField width("width", &one, PluginFieldType::kINT32, 1);
  EXPECT(create(creator, {height, width}, TensorRTPhase::kBUILD));
  EXPECT(create(creator, {width, height}, TensorRTPhase::kBUILD));
  EXPECT(!create(creator, {height}, TensorRTPhase::kBUILD));
  EXPECT(logger.last == "CamFuse: expected the attribute width as one int32");
  EXPECT(!create(creator, {height, PluginField("width", &real, PluginFieldType::kFLOAT32, 1)}, TensorRTPhase::kBUILD));
  EXPECT(!create(creator, {height, PluginField("width", &one, PluginFieldType::kINT32, 0)}, TensorRTPhase::kBUILD));
  EXPECT(!create(creator, {height, PluginField("width", &none, PluginFieldType::kINT32, 1)}, TensorRTPhase::kBUILD));
  EXPECT(logger.last == "CamFuse: expected height and width above 0");
  EXPECT(creator.createPlugin("", nullptr, TensorRTPhase::kBUILD) == nullptr);
  // An engine says which layout its fields have.
  EXPECT(!create(creator, {height, width}, TensorRTPhase::kRUNTIME));
  const std::int32_t later = 2;
  EXPECT(!create(creator, {PluginField("layout", &later, PluginFieldType::kINT32, 1), height, width},
                 TensorRTPhase::kRUNTIME));
  EXPECT(logger.last == "CamFuse: this engine is of another version of the plugin; build it again");
}

Plugin made(IPluginCreatorV3One& creator) {
  return create(creator,
                {PluginField("height", &kHeight, PluginFieldType::kINT32, 1),
                 PluginField("width", &kWidth, PluginFieldType::kINT32, 1)},
                TensorRTPhase::kBUILD);
}

void check_building(IPluginV3& plugin, Logger& logger) {
  auto& build = capability<IPluginV3OneBuild>(plugin, PluginCapabilityType::kBUILD);
  EXPECT(build.getNbOutputs() == 1);

  std::array<DataType, kInputs> types{DataType::kHALF, DataType::kHALF, DataType::kHALF, DataType::kHALF,
                                      DataType::kFLOAT};
  DataType output = DataType::kINT8;
  EXPECT(build.getOutputDataTypes(&output, 1, types.data(), kInputs) == 0 && output == DataType::kHALF);
  EXPECT(build.getOutputDataTypes(&output, 1, types.data(), 3) != 0);

  StandInExprBuilder builder;
  std::array<DimsExprs, kInputs> inputs{};
  for (DimsExprs& dims : inputs) {
    dims.nbDims = 4;
    for (std::int64_t at = 0; at < 4; ++at) {
      dims.d[at] = builder.constant(at + 2);
    }
  }
  DimsExprs map{};
  EXPECT(build.getOutputShapes(inputs.data(), kInputs, nullptr, 0, &map, 1, builder) == 0);
  EXPECT(map.nbDims == 4 && map.d[0] == inputs[0].d[0] && map.d[1] == inputs[0].d[1]);
  EXPECT(map.d[2]->getConstantValue() == kHeight && map.d[3]->getConstantValue() == kWidth);
  inputs[0].nbDims = 3;
  EXPECT(build.getOutputShapes(inputs.data(), kInputs, nullptr, 0, &map, 1, builder) != 0);
  EXPECT(build.getOutputShapes(inputs.data(), 4, nullptr, 0, &map, 1, builder) != 0);

  // Of all combinations of types: all fp32, or maps and output fp16.
  const std::array<DataType, 4> known{DataType::kFLOAT, DataType::kHALF, DataType::kINT8, DataType::kINT32};
  int supported = 0;
  for (int combination = 0; combination < 4096; ++combination) {
    auto described = dynamic(tensors(DataType::kFLOAT, 1));
    for (std::size_t at = 0; at < described.size(); ++at) {
      described[at].desc.type = known.at(static_cast<std::size_t>(combination >> 2 * at & 3));
    }
    bool all = true;
    for (std::int32_t at = 0; at < kInputs + 1; ++at) {
      all = build.supportsFormatCombination(at, described.data(), kInputs, 1) && all;
    }
    const DataType type = described[0].desc.type;
    const bool right = all && described[5].desc.type == type && described[4].desc.type == DataType::kFLOAT &&
                       (type == DataType::kFLOAT || type == DataType::kHALF);
    EXPECT(right == all);
    supported += all ? 1 : 0;
  }
  EXPECT(supported == 2);
  auto described = dynamic(tensors(DataType::kHALF, 1));
  described[0].desc.format = TensorFormat::kHWC8;
  EXPECT(!build.supportsFormatCombination(0, described.data(), kInputs, 1));
  EXPECT(!build.supportsFormatCombination(6, described.data(), kInputs, 1));

  auto largest = dynamic(tensors(DataType::kHALF, 8));
  EXPECT(build.configurePlugin(largest.data(), kInputs, largest.data() + kInputs, 1) == 0);
  EXPECT(build.getWorkspaceSize(largest.data(), kInputs, largest.data() + kInputs, 1) == 0);
  largest[2].max.d[3] = 3;
  EXPECT(build.configurePlugin(largest.data(), kInputs, largest.data() + kInputs, 1) != 0);
  EXPECT(logger.last ==
         "CamFuse: expected class maps of at least two columns, with cells of 4, 8, 16 and 32 pixels, got 6 x 3 of 16 "
         "for a map of 96 x 64; run the plain graph for other models");
}

void check_serialised(IPluginCreatorV3One& creator) {
  Plugin first = made(creator);
  Plugin copy(first->clone());
  first.reset();  // the copy's fields are its own
  auto& runtime = capability<IPluginV3OneRuntime>(*copy, PluginCapabilityType::kRUNTIME);
  const PluginFieldCollection& fields = *runtime.getFieldsToSerialize();
  Plugin again = create(creator, {fields.fields, fields.fields + fields.nbFields}, TensorRTPhase::kRUNTIME);
  EXPECT(again);
  auto& core = capability<IPluginV3OneCore>(*again, PluginCapabilityType::kCORE);
  EXPECT(std::string(core.getPluginName()) == "CamFuse" && std::string(core.getPluginNamespace()) == "msloc");
  const PluginFieldCollection& same =
      *capability<IPluginV3OneRuntime>(*again, PluginCapabilityType::kRUNTIME).getFieldsToSerialize();
  EXPECT(same.nbFields == fields.nbFields);
  for (std::int32_t at = 0; at < fields.nbFields; ++at) {
    EXPECT(std::string(same.fields[at].name) == fields.fields[at].name);
    EXPECT(*static_cast<const std::int32_t*>(same.fields[at].data) ==
           *static_cast<const std::int32_t*>(fields.fields[at].data));
  }
}

/// A plane that is the same everywhere stays so: M = sum_s w_s a_s = 1 * 1 + 2 * 2 + 3 * 3 + 4 * 4.
void check_running(IPluginV3& plugin, Logger& logger, bool fails) {
  auto& shared = capability<IPluginV3OneRuntime>(plugin, PluginCapabilityType::kRUNTIME);
  Plugin own(shared.attachToContext(nullptr));
  EXPECT(own);
  auto& runtime = capability<IPluginV3OneRuntime>(*own, PluginCapabilityType::kRUNTIME);
  constexpr std::size_t batch = 2;
  auto described = tensors(DataType::kFLOAT, batch);
  EXPECT(runtime.onShapeChange(described.data(), kInputs, described.data() + kInputs, 1) == 0);
  std::array<std::vector<float>, 4> cams;
  std::array<const void*, kInputs> inputs{};
  for (std::size_t stage = 0; stage < 4; ++stage) {
    const auto cells = static_cast<std::size_t>(kStages.at(stage)[0] * kStages.at(stage)[1]);
    cams.at(stage).assign(batch * kClasses * cells, static_cast<float>(stage + 1));
    inputs.at(stage) = cams.at(stage).data();
  }
  std::vector<float> relevance;
  for (int k = 0; k < kClasses; ++k) {
    relevance.insert(relevance.end(), {1, 2, 3, 4});
  }
  inputs[4] = relevance.data();
  // The stand-in knows the memory that it gave.
  void* const driver = dlopen("libcuda.so.1", RTLD_NOW);
  EXPECT(driver != nullptr);
  constexpr std::size_t pixels = batch * kClasses * kHeight * kWidth;
  void* maps = nullptr;
  EXPECT(reinterpret_cast<int (*)(void**, std::size_t)>(dlsym(driver, "cuMemAlloc_v2"))(&maps,
                                                                                        pixels * sizeof(float)) == 0);
  const int status =
      runtime.enqueue(described.data(), described.data() + kInputs, inputs.data(), &maps, nullptr, nullptr);
  if (fails) {
    EXPECT(status != 0);
    EXPECT(logger.last == "CUDA's driver: cuLaunchKernel failed: made to fail (200)");
    return;
  }
  EXPECT(status == 0);
  for (std::size_t at = 0; at < pixels; ++at) {
    EXPECT(static_cast<const float*>(maps)[at] == 30);
  }
  void* const odd = static_cast<float*>(maps) + 1;
  EXPECT(runtime.enqueue(described.data(), described.data() + kInputs, inputs.data(), &odd, nullptr, nullptr) != 0);
  EXPECT(logger.last == "CamFuse: expected memory for the maps at a multiple of 16 bytes, got it 4 past one");
  described[4].dims.d[1] = 3;
  EXPECT(runtime.onShapeChange(described.data(), kInputs, described.data() + kInputs, 1) != 0);
  EXPECT(logger.last == "CamFuse: expected relevance of shape [K, 4]");
  EXPECT(runtime.enqueue(described.data(), described.data() + kInputs, inputs.data(), &maps, nullptr, nullptr) != 0);
}

}  // namespace

int main(int argc, char** argv) {
  EXPECT(argc >= 2);
  Logger logger;
  IPluginCreatorV3One& creator = *creator_of(argv[1], logger);
  check_creation(creator, logger);
  Plugin plugin = made(creator);
  check_building(*plugin, logger);
  check_serialised(creator);
  check_running(*plugin, logger, argc > 2);
  return 0;
}
