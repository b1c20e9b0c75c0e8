#include "fake_engine.h"

#include <filesystem>
#include <fstream>

#include "engine.h"
#include "sha256.h"

Script script;

namespace {

class FakeEngine : public msloc::Engine {
 public:
  explicit FakeEngine(const msloc::Bundle& bundle)
      : input_(static_cast<std::size_t>(bundle.input.width) * static_cast<std::size_t>(bundle.input.height)) {}

  float* input() noexcept override { return input_.data(); }
  void infer() override {
    if (script.during) script.during();
  }
  [[nodiscard]] const float* logits() const noexcept override { return script.logits.data(); }
  [[nodiscard]] const float* cams(int stage) const noexcept override {
    return script.cams[static_cast<std::size_t>(stage)].data();
  }
  [[nodiscard]] const std::string& description() const noexcept override { return description_; }

 private:
  std::vector<float> input_;
  std::string description_ = "fake 1 CPU";
};

}  // namespace

namespace msloc {

std::unique_ptr<Engine> make_engine(const std::string& /*name*/, const Bundle& bundle,
                                    const EngineOptions& /*options*/) {
  return std::make_unique<FakeEngine>(bundle);
}

}  // namespace msloc

void write_bundle(const std::string& folder, const std::string& members, const std::string& profile_members) {
  std::filesystem::create_directories(folder);
  const std::string model = "\x32\x0ano network";  // a graph without nodes, and a text
  std::ofstream(folder + "/model.onnx") << model;
  const std::string hash = msloc::sha256(model);
  std::ofstream(folder + "/manifest.json")
      << R"({"schema": "msloc-edge/bundle/1", "name": "fake", "version": "1", )" << members << R"(
    "classes": ["Big \"one\"", "Small"], "input": {"height": 64, "width": 64},
    "stages": [{"height": 16, "width": 16, "stride": 4}, {"height": 8, "width": 8, "stride": 8}],
    "relevance": [[0.75, 0.25], [0.5, 0.5]], "bias": [0, 0], "temperature": 2.0,
    "profiles": {"youden": {)"
      << profile_members << R"("score": [0.5, 0.5], "map": [1.0, 1.0]},
                 "other": {"score": [0.9, 0.01], "map": [1, 1]}},
    "default_profile": "youden", "files": {"model.onnx": ")"
      << hash << R"("}, "thresholds_for": ")" << hash << R"("})";
}
