// msloc-build: the plan of a bundle's network for this machine, by TensorRT and its ONNX parser, without Python.
// Exit status: 0 the plan is in the cache, 1 it could not be built (the reason is on stderr), 2 usage.
#include <NvInfer.h>
#include <NvOnnxParser.h>
#include <dlfcn.h>
#include <getopt.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>

#include "bundle.h"
#include "cuda_stream.h"
#include "failure.h"
#include "installed.h"
#include "nvinfer.h"
#include "plan_file.h"

namespace {

using msloc::Failure;

constexpr const char* kUsage = R"(usage: msloc-build [OPTION]...
Builds the TensorRT plan of a bundle's network, fp32, on the GPU that is to run it, and keeps it in the engine cache.
msloc_options.cache_folder (msloc-infer --cache) takes it from there.

  --bundle DIR        the model; otherwise the SDK's own
  --cache DIR         otherwise $MSLOC_CACHE/engines or ~/.cache/msloc-edge/engines
  --batch MIN:OPT:MAX films at a time; otherwise 1:1:1
  --device N          which GPU; otherwise 0
  --workspace MIB     device memory for one layer's scratch at most; otherwise what there is
)";

struct Arguments {
  std::string bundle = installed_bundle();
  std::string cache;
  int least = 1, best = 1, most = 1;
  int device = 0;
  std::size_t workspace = 0;  // MiB; 0: what there is
};

std::string default_cache() {
  const char* const named = std::getenv("MSLOC_CACHE");
  if (named != nullptr) return std::string(named) + "/engines";
  const char* const home = std::getenv("HOME");
  return std::string(home == nullptr ? "." : home) + "/.cache/msloc-edge/engines";
}

bool take(Arguments& arguments, char option, const char* value) {
  char rest = 0;
  switch (option) {
    case 'b': return arguments.bundle = value, true;
    case 'c': return arguments.cache = value, true;
    case 'n':
      return std::sscanf(value, "%d:%d:%d%c", &arguments.least, &arguments.best, &arguments.most, &rest) == 3 &&
             1 <= arguments.least && arguments.least <= arguments.best && arguments.best <= arguments.most;
    case 'd': return std::sscanf(value, "%d%c", &arguments.device, &rest) == 1;
    case 'w': return std::sscanf(value, "%zu%c", &arguments.workspace, &rest) == 1;
    default: return false;
  }
}

bool parse(int argc, char** argv, Arguments& arguments) {
  static const option known[] = {
      {"bundle", required_argument, nullptr, 'b'},    {"cache", required_argument, nullptr, 'c'},
      {"batch", required_argument, nullptr, 'n'},     {"device", required_argument, nullptr, 'd'},
      {"workspace", required_argument, nullptr, 'w'}, {}};
  for (int found; (found = getopt_long(argc, argv, "", known, nullptr)) != -1;)
    if (!take(arguments, static_cast<char>(found), optarg)) return false;
  if (arguments.cache.empty()) arguments.cache = default_cache();
  return optind == argc;
}

/// A line on stderr for each phase that TensorRT begins.
class Progress final : public nvinfer1::IProgressMonitor {
 public:
  void phaseStart(const char* phase, const char* parent, int32_t steps) noexcept override {
    if (parent == nullptr || steps > 1) std::fprintf(stderr, "%s: %d steps\n", phase, steps);
  }
  bool stepComplete(const char* /*phase*/, int32_t /*step*/) noexcept override { return true; }
  void phaseFinish(const char* /*phase*/) noexcept override {}
};

/// A function of one of TensorRT's libraries, of the headers' major version. They are opened, not linked, and stay.
template <typename Function>
Function* function(const std::string& library, const char* name) {
  const std::string file = library + ".so." + std::to_string(NV_TENSORRT_MAJOR);
  void* const handle = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
  void* const found = handle == nullptr ? nullptr : dlsym(handle, name);
  if (found == nullptr)
    throw Failure(MSLOC_BACKEND_DEVICE,
                  "expected " + file + " with " + name + ", found none; install TensorRT with its ONNX parser");
  return reinterpret_cast<Function*>(found);
}

/// An object of TensorRT that has to be there.
template <typename Object>
std::unique_ptr<Object> made(Object* object, const char* what, const msloc::Logger& logger) {
  if (object == nullptr)
    throw Failure(MSLOC_BACKEND_FAILED, std::string("expected ") + what + ", got none: " + logger.last_error());
  return std::unique_ptr<Object>(object);
}

std::string build(const msloc::Bundle& bundle, const Arguments& arguments) {
  using namespace nvinfer1;
  msloc::Logger logger;
  auto* const make_builder = function<void*(void*, std::int32_t)>("libnvinfer", "createInferBuilder_INTERNAL");
  auto* const make_parser = function<void*(void*, void*, int)>("libnvonnxparser", "createNvOnnxParser_INTERNAL");
  ILogger* const log = &logger;
  const auto builder = made(static_cast<IBuilder*>(make_builder(log, NV_TENSORRT_VERSION)), "a builder", logger);
#if NV_TENSORRT_MAJOR < 11
  constexpr auto flags = 1U << static_cast<unsigned>(NetworkDefinitionCreationFlag::kSTRONGLY_TYPED);
#else
  constexpr auto flags = 0U;  // all networks are strongly typed
#endif
  const auto network = made(builder->createNetworkV2(flags), "a network", logger);
  const auto parser = made(static_cast<nvonnxparser::IParser*>(make_parser(network.get(), log, NV_ONNX_PARSER_VERSION)),
                           "a parser", logger);
  if (!parser->parse(bundle.model.data(), bundle.model.size()))
    throw Failure(MSLOC_BACKEND_FAILED, std::string("expected a graph that TensorRT takes, got another: ") +
                                            (parser->getNbErrors() > 0 ? parser->getError(0)->desc() : "no reason"));
  const auto config = made(builder->createBuilderConfig(), "a configuration", logger);
  config->clearFlag(BuilderFlag::kTF32);  // fp32 as on the CPU: TF32 would move logits by about 1e-3
  if (arguments.workspace > 0) config->setMemoryPoolLimit(MemoryPoolType::kWORKSPACE, arguments.workspace << 20);
  IOptimizationProfile* const profile = builder->createOptimizationProfile();
  const auto shape = [&](int batch) { return Dims4(batch, 1, bundle.input.height, bundle.input.width); };
  profile->setDimensions("image", OptProfileSelector::kMIN, shape(arguments.least));
  profile->setDimensions("image", OptProfileSelector::kOPT, shape(arguments.best));
  profile->setDimensions("image", OptProfileSelector::kMAX, shape(arguments.most));
  if (config->addOptimizationProfile(profile) < 0)
    throw Failure(MSLOC_BACKEND_FAILED, "expected a batch that TensorRT takes, got another: " + logger.last_error());
  Progress progress;
  config->setProgressMonitor(&progress);
  const auto plan = made(builder->buildSerializedNetwork(*network, *config), "a plan", logger);
  return {static_cast<const char*>(plan->data()), plan->size()};
}

std::string version() {
  const int number = function<std::int32_t()>("libnvinfer", "getInferLibBuildVersion")();
  return msloc::NvInfer::get().version() + "." + std::to_string(number);
}

void run(const Arguments& arguments) {
  const msloc::Bundle bundle = msloc::Bundle::open(arguments.bundle, "");
  const msloc::cuda::PrimaryContext context(arguments.device);
  const msloc::cuda::Current current(context);
  const PlanKey key{bundle.sha256, version(),       context.sm(),   "fp32",
                    "network",     arguments.least, arguments.best, arguments.most};
  const PlanLock lock(arguments.cache, key, [](const std::string& file) {
    std::fprintf(stderr, "%s: another process builds this plan; waiting for it\n", file.c_str());
  });
  if (!has_plan(arguments.cache, key)) {
    const auto begun = std::chrono::steady_clock::now();
    const std::string plan = build(bundle, arguments);
    const std::chrono::duration<double> passed = std::chrono::steady_clock::now() - begun;
    write_plan(arguments.cache, key, plan, passed.count());
  }
  std::printf("%s/%s\n", arguments.cache.c_str(), key.file().c_str());
}

}  // namespace

int main(int argc, char** argv) {
  Arguments arguments;
  if (!parse(argc, argv, arguments)) return std::fputs(kUsage, stderr), 2;
  try {
    run(arguments);
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "msloc-build: %s\n", error.what());
    return 1;
  }
}
