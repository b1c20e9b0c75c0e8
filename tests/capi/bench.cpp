// What the library costs around the network: bench BUNDLE FILM.pgm [WIDTH HEIGHT [THREADS]]. Not a test: it only prints.
//
// Cold start first, then for the film enlarged to that size, 12 bits in 16, the medians of msloc_localize and its
// stages, in turn with OpenVINO's own synchronous inference of the same model with the same settings.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <openvino/openvino.hpp>
#include <string>
#include <vector>

#include "film_file.h"

namespace {

using Clock = std::chrono::steady_clock;

double since(Clock::time_point begun) {
  return std::chrono::duration<double, std::milli>(Clock::now() - begun).count();
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

void require(msloc_status status, const char* sentence) {
  if (status == MSLOC_OK) return;
  std::fprintf(stderr, "%s: %s\n", msloc_status_text(status), sentence);
  std::exit(1);
}

/// The film of a PGM at another size and with 12 bits, by the nearest sample.
std::vector<std::uint16_t> make_film(const char* path, std::uint32_t width, std::uint32_t height) {
  std::ifstream file(path, std::ios::binary);
  const auto small = read_pgm({std::istreambuf_iterator<char>(file), {}});
  if (!small) require(small.error().status, small.error().sentence.c_str());
  const std::uint32_t largest = (1U << small->shape.bits) - 1;
  std::vector<std::uint16_t> film;
  film.reserve(std::size_t{width} * height);
  for (std::size_t y = 0; y < height; ++y)
    for (std::size_t x = 0; x < width; ++x) {
      const std::size_t at = y * small->shape.height / height * small->shape.width + x * small->shape.width / width;
      film.push_back(static_cast<std::uint16_t>(small->samples[at] * 4095U / largest));
    }
  return film;
}

class Network {
 public:
  explicit Network(const std::string& bundle, int threads) {
    ov::AnyMap settings{ov::hint::inference_precision(ov::element::f32),
                        ov::hint::performance_mode(ov::hint::PerformanceMode::LATENCY)};
    if (threads > 0) settings.insert(ov::inference_num_threads(threads));
    const auto model = core_.read_model(bundle + "/model.onnx");
    auto shape = model->input().get_partial_shape();
    shape[0] = 1;
    model->reshape(shape);
    request_ = core_.compile_model(model, "CPU", settings).create_infer_request();
    ov::Tensor input = request_.get_input_tensor();
    std::fill_n(input.data<float>(), input.get_size(), 0.5F);
  }

  double run() {
    const auto begun = Clock::now();
    request_.infer();
    return since(begun);
  }

 private:
  ov::Core& core_ = *new ov::Core;
  ov::InferRequest request_;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) return std::fprintf(stderr, "usage: %s BUNDLE FILM.pgm [WIDTH HEIGHT [THREADS]]\n", argv[0]), 2;
  const auto width = static_cast<std::uint32_t>(argc > 4 ? std::atoi(argv[3]) : 2500);
  const auto height = static_cast<std::uint32_t>(argc > 4 ? std::atoi(argv[4]) : 3000);
  const int threads = argc > 5 ? std::atoi(argv[5]) : 0;
  const std::vector<std::uint16_t> film = make_film(argv[2], width, height);

  msloc_pixels pixels = MSLOC_PIXELS_INIT;
  pixels.data = film.data();
  pixels.data_size = 2 * film.size();
  pixels.width = width;
  pixels.height = height;
  pixels.bits_allocated = 16;
  pixels.bits_stored = 12;
  pixels.voi = MSLOC_VOI_LINEAR;
  pixels.window_center = 2048;
  pixels.window_width = 4096;

  char error[512] = "";
  msloc_options options = MSLOC_OPTIONS_INIT;
  options.bundle = argv[1];
  options.threads = static_cast<std::uint32_t>(threads);
  options.error = error;
  options.error_size = sizeof error;
  msloc_localizer* localizer = nullptr;
  const auto begun = Clock::now();
  require(msloc_open(&options, &localizer), error);
  const double opened = since(begun);
  require(msloc_localize(localizer, &pixels, nullptr), msloc_last_error(localizer));
  std::printf("open %.0f ms, first result after %.0f ms\n", opened, since(begun));

  Network network(argv[1], threads);
  for (const std::uint32_t all_classes : {0U, 1U}) {
    msloc_request request = MSLOC_REQUEST_INIT;
    request.all_classes = all_classes;
    std::vector<double> total;
    std::vector<double> preprocess;
    std::vector<double> inside;
    std::vector<double> localize;
    std::vector<double> alone;
    msloc_summary summary = MSLOC_SUMMARY_INIT;
    for (int i = 0; i < 60; ++i) {
      alone.push_back(network.run());
      require(msloc_localize(localizer, &pixels, &request), msloc_last_error(localizer));
      require(msloc_get_summary(localizer, &summary), msloc_last_error(localizer));
      total.push_back(static_cast<double>(summary.total_ms));
      preprocess.push_back(static_cast<double>(summary.preprocess_ms));
      inside.push_back(static_cast<double>(summary.network_ms));
      localize.push_back(static_cast<double>(summary.localize_ms));
    }
    std::printf("%u x %u, %s: total %.2f = preprocess %.2f + network %.2f + localize %.2f ms; OpenVINO alone %.2f ms\n",
                width, height, all_classes == 0 ? "positive classes" : "all classes", median(total), median(preprocess),
                median(inside), median(localize), median(alone));
  }
  msloc_close(localizer);
}
