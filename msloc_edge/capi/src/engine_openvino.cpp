// OpenVINO: Intel's and Arm's CPUs, Intel's GPUs and NPUs, from the ONNX file. Settings as
// msloc_edge/backends/openvino.py.
#include <algorithm>
#include <openvino/openvino.hpp>

#include "engine.h"
#include "failure.h"

namespace msloc {
namespace {

/// The one Core of this process, never freed.
///
/// A Core's CPU plugin sets the thread's signal stack and puts the one before back when it is freed: of several Cores
/// freed out of order that one is gone, and the next signal ends the process (OpenVINO 2026.4).
ov::Core& shared_core() {
  static ov::Core& core = *new ov::Core;
  return core;
}

std::string upper(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c; });
  return text;
}

std::string one_line(const char* text) {
  std::string line(text);
  std::replace_if(
      line.begin(), line.end(), [](char c) { return c == '\n' || c == '\r'; }, ' ');
  return line;
}

void check_device(const std::string& device) {
  const std::string family = device.substr(0, device.find('.'));
  const std::vector<std::string> known = shared_core().get_available_devices();
  std::string names;
  for (const std::string& name : known) {
    if (name.substr(0, name.find('.')) == family) return;
    names += (names.empty() ? "" : ", ") + name;
  }
  throw Failure(MSLOC_BACKEND_DEVICE,
                "openvino: expected a device of " + names + ", got '" + device + "'; choose one of these");
}

ov::AnyMap settings(const EngineOptions& options, bool cpu) {
  // Accuracy first: on CPUs with bf16 units OpenVINO would otherwise compute in bf16 and break parity.
  ov::AnyMap map{ov::hint::inference_precision(ov::element::f32),
                 ov::hint::performance_mode(ov::hint::PerformanceMode::LATENCY)};
  if (options.threads > 0 && cpu) map.insert(ov::inference_num_threads(options.threads));
  if (!options.cache_folder.empty()) map.insert(ov::cache_dir(options.cache_folder));
  return map;
}

class OpenVinoEngine : public Engine {
 public:
  OpenVinoEngine(const Bundle& bundle, const EngineOptions& options) {
    const std::string device = upper(options.device.empty() ? "CPU" : options.device);
    check_device(device);
    const auto model = shared_core().read_model(bundle.model, ov::Tensor());
    check_names(*model, bundle);
    const ov::Shape shape{1, 1, static_cast<std::size_t>(bundle.input.height),
                          static_cast<std::size_t>(bundle.input.width)};
    if (!model->input().get_partial_shape().compatible(shape)) throw other_network("an input of the size");
    model->reshape(ov::PartialShape(shape));  // one film at a time: OpenVINO plans for it alone
    request_ = shared_core().compile_model(model, device, settings(options, device == "CPU")).create_infer_request();
    input_ = own(request_.get_input_tensor().get_shape());
    request_.set_input_tensor(input_);
    claim_outputs(bundle);
    description_ = "openvino " + std::string(ov::get_openvino_version().buildNumber) + " " + device;
  }

  float* input() noexcept override { return input_.data<float>(); }

  void infer() override {
    try {
      request_.infer();
    } catch (const std::exception& error) {
      throw Failure(MSLOC_BACKEND_FAILED, "openvino failed on a film: " + one_line(error.what()));
    }
  }

  [[nodiscard]] const float* logits() const noexcept override { return outputs_.front(); }
  [[nodiscard]] const float* cams(int stage) const noexcept override {
    return outputs_[static_cast<std::size_t>(stage) + 1];
  }
  [[nodiscard]] const std::string& description() const noexcept override { return description_; }

 private:
  static ov::Tensor own(const ov::Shape& shape) { return {ov::element::f32, shape}; }

  /// One input, image; the outputs logits, cams_1, ... in this order.
  static void check_names(const ov::Model& model, const Bundle& bundle) {
    const auto outputs = model.outputs();
    bool fits = model.inputs().size() == 1 && model.input().get_names().count("image") == 1 &&
                model.input().get_element_type() == ov::element::f32 && outputs.size() == bundle.stages.size() + 1;
    for (std::size_t i = 0; fits && i < outputs.size(); ++i)
      fits = outputs[i].get_names().count(i == 0 ? "logits" : "cams_" + std::to_string(i)) == 1 &&
             outputs[i].get_element_type() == ov::element::f32;
    if (!fits) throw other_network("the input image and the outputs logits, cams_1, ... as float32");
  }

  /// Output buffers that never move: logits, then one per stage, checked against the manifest.
  void claim_outputs(const Bundle& bundle) {
    const auto classes = static_cast<std::size_t>(bundle.class_count());
    std::vector<ov::Shape> expected{{1, classes}};
    for (const Stage& stage : bundle.stages) {
      const auto height = static_cast<std::size_t>(stage.height);
      const auto width = static_cast<std::size_t>(stage.width);
      expected.emplace_back(ov::Shape{1, classes, height, width});
    }
    for (std::size_t i = 0; i < expected.size(); ++i) {
      ov::Tensor tensor = own(expected[i]);
      const ov::PartialShape& found = request_.get_compiled_model().output(i).get_partial_shape();
      if (found != ov::PartialShape(expected[i])) throw other_network("outputs of the classes and stages");
      request_.set_output_tensor(i, tensor);
      outputs_.push_back(tensor.data<float>());
      tensors_.push_back(tensor);
    }
  }

  static Failure other_network(const std::string& expected) {
    return {MSLOC_BUNDLE_DAMAGED,
            "expected a network with " + expected + " of its manifest, got another; export the bundle again"};
  }

  ov::InferRequest request_;
  ov::Tensor input_;
  std::vector<ov::Tensor> tensors_;
  std::vector<const float*> outputs_;
  std::string description_;
};

}  // namespace

std::unique_ptr<Engine> make_openvino_engine(const Bundle& bundle, const EngineOptions& options) {
  try {
    return std::make_unique<OpenVinoEngine>(bundle, options);
  } catch (const ov::Exception& error) {
    throw Failure(MSLOC_BACKEND_FAILED, "openvino cannot load the bundle's model: " + one_line(error.what()));
  }
}

}  // namespace msloc
