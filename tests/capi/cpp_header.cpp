// What test_cpp_header.py runs: msloc_edge.hpp around the built library. cpp_header BUNDLE
#include <msloc_edge.hpp>
#include <string>
#include <thread>
#include <type_traits>

#include "check.h"

namespace {

using namespace msloc_edge;

std::vector<std::uint16_t> samples(std::size_t{96} * 128);

msloc_pixels film() { return pixels(samples.data(), 96, 128, 12); }

Localizer opened(const Options& options) {
  auto localizer = Localizer::open(options);
  check(static_cast<bool>(localizer), localizer ? "" : localizer.error().sentence.c_str());
  return *std::move(localizer);
}

void test_errors(Options options) {
  const auto missing = Localizer::open({});
  check(!missing && missing.error().status == MSLOC_ARGUMENT, "no bundle");
  options.profile = "none";
  const auto unknown = Localizer::open(options);
  check(!unknown && std::string(unknown.error().name()) == "profile_unknown", "an unknown profile");
  check(!unknown && unknown.error().sentence.find("youden") != std::string::npos, "its sentence names those there are");
}

void test_result(const Options& options) {
  Localizer localizer = opened(options);
  check(!localizer.input() && localizer.input().error().status == MSLOC_NO_RESULT, "before a film");
  Request request;
  request.all_classes = true;
  const auto result = localizer.localize(film(), request);
  check(static_cast<bool>(result), result ? "" : result.error().sentence.c_str());
  const auto model = localizer.model();
  check(model && result->findings.size() == model->classes, "a finding for each class");
  check(result->film.image_height == 128, "the film");
  for (std::uint32_t k = 0; k < model->classes; ++k) {
    const Finding& finding = result->findings[k];
    msloc_finding found = MSLOC_FINDING_INIT;
    check(msloc_get_finding(localizer.get(), k, &found) == MSLOC_OK, "the same in C");
    check(finding.label == found.label && finding.boxes.size() == found.boxes, "label and boxes");
    check(finding.localized && finding.score == found.score && finding.peak_y == found.peak_y, "numbers");
  }
  const auto relevance = localizer.relevance(0);
  float sum = 0;
  for (const float weight : *relevance) sum += weight;
  check(relevance->size() == model->stages && sum > 0.999F && sum < 1.001F, "weights sum to one");
  const auto input = localizer.input();
  check(input && input->size() == std::size_t{model->input_width} * model->input_height, "the input");
  const auto map = localizer.map(3);
  check(map && map->size() == input->size(), "a map");
  const auto test = localizer.self_test();
  check(test && test->iou > 0.95 && test->logit > 0 && test->logit < 1e-3, "the self-test's numbers");
}

void test_batch(const Options& options) {
  Localizer localizer = opened(options);
  msloc_pixels refused = film();
  refused.width = 3;
  const auto results = localizer.localize_batch({film(), refused, film()});
  check(results.size() == 3 && results[0] && !results[1] && results[2], "one is refused");
  check(results[1].error().status == MSLOC_TOO_SMALL, "with its status");
  check(results[0]->findings[0].score == results[2]->findings[0].score, "the others are alike");
  Request request;
  request.deadline = std::chrono::milliseconds(0);
  const auto late = localizer.localize_batch({film(), film()}, request);
  check(late.size() == 2 && late[1].error().status == MSLOC_DEADLINE, "a deadline that has passed");
}

void test_callbacks(Options options) {
  std::vector<std::string> lines, audit;
  options.log = [&](std::int32_t, const char* message) { lines.emplace_back(message); };
  options.audit = [&](const char* json) { audit.emplace_back(json); };
  Localizer first = opened(options);
  Localizer localizer = std::move(first);  // the callbacks stay where they are
  check(static_cast<bool>(localizer.localize(film())), "a film");
  check(lines.size() == 1 && lines[0].rfind("opened ", 0) == 0, "the log");
  check(audit.size() == 1 && audit[0].front() == '{', "the audit");
}

#if defined(__cpp_exceptions)
void test_exceptions(const Options& options) {
  check(opened(options).localize(film()).value().film.image_width == 96, "a value");
  try {
    Localizer::open({}).value();
    check(false, "nothing was thrown");
  } catch (const Exception& error) {
    check(error.status() == MSLOC_ARGUMENT && std::string(error.what()).rfind("argument: ", 0) == 0, "the error");
  }
}
#endif

}  // namespace

static_assert(!std::is_copy_constructible_v<Localizer> && std::is_nothrow_move_constructible_v<Localizer>);

int main(int, char** argv) {
  for (std::size_t i = 0; i < samples.size(); ++i) samples[i] = static_cast<std::uint16_t>(i * 7 % 4096);
  Options options;
  options.bundle = argv[1];
  options.threads = 1;
  test_errors(options);
  test_result(options);
  test_batch(options);
  test_callbacks(options);
#if defined(__cpp_exceptions)
  test_exceptions(options);
#endif
  return finish();
}
