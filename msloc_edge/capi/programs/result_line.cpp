#include "result_line.h"

#include <cmath>
#include <ctime>
#include <nlohmann/json.hpp>

namespace {

using Json = nlohmann::ordered_json;

double rounded(double value, int digits) {
  const double scale = std::pow(10, digits);
  return std::round(value * scale) / scale;
}

std::string now() {
  const std::time_t time = std::time(nullptr);
  std::tm parts{};
  gmtime_r(&time, &parts);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S+00:00", &parts);
  return text;
}

Json point(double x, double y, double value) {
  return {{"x", rounded(x, 4)}, {"y", rounded(y, 4)}, {"value", rounded(value, 4)}};
}

Json box_of(const msloc_box& box) {
  return {{"x", rounded(box.x, 4)},
          {"y", rounded(box.y, 4)},
          {"w", rounded(box.w, 4)},
          {"h", rounded(box.h, 4)},
          {"score", rounded(box.score, 4)}};
}

Json finding_of(const msloc_edge::Finding& finding, const std::vector<float>& relevance) {
  Json boxes = Json::array();
  for (const msloc_box& box : finding.boxes) boxes.push_back(box_of(box));
  Json weights = Json::array();
  for (const float weight : relevance) weights.push_back(rounded(static_cast<double>(weight), 6));
  return {{"label", finding.label},
          {"score", rounded(finding.score, 6)},
          {"threshold", rounded(finding.threshold, 6)},
          {"positive", finding.positive},
          {"peak", finding.localized ? point(finding.peak_x, finding.peak_y, finding.peak_value) : Json()},
          {"boxes", std::move(boxes)},
          {"relevance", std::move(weights)}};
}

Json geometry_of(const msloc_summary& film, const msloc_model& model) {
  return {{"image_width", film.image_width},
          {"image_height", film.image_height},
          {"input_width", model.input_width},
          {"input_height", model.input_height},
          {"left", film.left},
          {"top", film.top},
          {"width", film.width},
          {"height", film.height}};
}

Json abnormal_of(const msloc_summary& film) {
  if (std::isnan(film.abnormal)) return {};
  const auto score = static_cast<double>(film.abnormal);
  const auto threshold = static_cast<double>(film.abnormal_threshold);
  return {{"score", rounded(score, 6)}, {"threshold", rounded(threshold, 6)}, {"positive", score >= threshold}};
}

/// The codes of docs/errors.md.
Json warnings_of(std::uint32_t bits) {
  constexpr const char* names[] = {
      "polarity_suspect", "no_window",           "bad_window", "not_frontal", "not_chest", "for_processing",
      "modality_missing", "dicom_nonconformant", "not_xray",   "rotated",     "cut_off",   "clipped",
      "low_resolution"};
  Json codes = Json::array();
  for (std::size_t bit = 0; bit < std::size(names); ++bit)
    if ((bits >> bit & 1) != 0) codes.push_back(names[bit]);
  return codes;
}

}  // namespace

std::string result_line(const Run& run, const std::string& input, const std::string& sha256,
                        const msloc_edge::Result& result) {
  const std::string engine = run.model.engine;
  const msloc_summary& film = result.film;
  const std::string version = std::to_string(MSLOC_VERSION_MAJOR) + "." + std::to_string(MSLOC_VERSION_MINOR) + "." +
                              std::to_string(MSLOC_VERSION_PATCH);
  Json findings = Json::array();
  for (std::size_t k = 0; k < result.findings.size(); ++k)
    findings.push_back(finding_of(result.findings[k], run.relevance[k]));
  const auto ms = [](float time) { return rounded(static_cast<double>(time), 3); };
  const Json line = {
      {"schema", "msloc-edge/result/1"},
      {"input", input},
      {"sha256", sha256},
      {"time", now()},
      {"program", "msloc-infer " + version},
      {"profile", run.model.profile},
      {"model", {{"name", run.model.name}, {"version", run.model.version}, {"sha256", run.model.sha256}}},
      {"backend", engine.substr(0, engine.find(' '))},
      {"geometry", geometry_of(film, run.model)},
      {"refused", nullptr},  // a film that is refused has no line here, but a status
      {"abnormal", abnormal_of(film)},
      {"findings", std::move(findings)},
      {"warnings", warnings_of(film.warnings)},
      {"timing_ms",
       {{"preprocess", ms(film.preprocess_ms)},
        {"network", ms(film.network_ms)},
        {"localize", ms(film.localize_ms)},
        {"total", ms(film.total_ms)}}}};
  return line.dump(-1, ' ', false, Json::error_handler_t::replace);
}
