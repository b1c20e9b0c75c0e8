// The whole C library around an engine that follows the test's script: statuses, threads, deadlines, memory.
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <limits>
#include <new>
#include <random>
#include <thread>
#include <vector>

#include "check.h"
#include "count_allocations.h"
#include "fake_engine.h"
#include "msloc_edge.h"

namespace {

std::string folder;

struct Lines {
  std::vector<std::string> lines;
  static void log(void* user, int32_t level, const char* message) {
    static_cast<Lines*>(user)->lines.push_back(std::to_string(level) + " " + message);
  }
  static void audit(void* user, const char* json) { static_cast<Lines*>(user)->lines.emplace_back(json); }
};

/// An open localizer, closed at the end.
class Opened {
 public:
  explicit Opened(msloc_options options = MSLOC_OPTIONS_INIT) {
    if (options.bundle == nullptr) options.bundle = folder.c_str();
    check(msloc_open(&options, &handle_) == MSLOC_OK, "the bundle opens");
  }
  ~Opened() { msloc_close(handle_); }
  Opened(const Opened&) = delete;
  Opened& operator=(const Opened&) = delete;

  operator msloc_localizer*() const { return handle_; }

 private:
  msloc_localizer* handle_ = nullptr;
};

/// A film of 96 x 128 pixels whose middle is bright.
struct Film {
  std::vector<std::uint8_t> samples;
  msloc_pixels pixels = MSLOC_PIXELS_INIT;

  Film() : samples(std::size_t{96} * 128) {
    for (std::size_t i = 0; i < samples.size(); ++i) samples[i] = i % 96 > 30 && i % 96 < 66 ? 200 : 10;
    pixels.data = samples.data();
    pixels.data_size = samples.size();
    pixels.width = 96;
    pixels.height = 128;
    pixels.bits_allocated = 8;
  }
};

/// Cells of class `k` in the coarse stage that stand out.
void raise(std::size_t k, const std::vector<std::size_t>& cells, float value) {
  for (const std::size_t cell : cells) script.cams[1][64 * k + cell] = value;
}

msloc_finding finding_of(msloc_localizer* localizer, std::uint32_t k) {
  msloc_finding finding = MSLOC_FINDING_INIT;
  check(msloc_get_finding(localizer, k, &finding) == MSLOC_OK, "a finding");
  return finding;
}

void test_result() {
  script = {};
  raise(0, {3 * 8 + 3}, 40);
  const Opened localizer;
  Film film;
  check(msloc_localize(localizer, &film.pixels, nullptr) == MSLOC_OK, msloc_last_error(localizer));
  const msloc_finding big = finding_of(localizer, 0);
  // p = sigmoid(3 / 2); cell (3, 3) of 8 x 8 pixels peaks at 0.25 * 40 * (1 - 1/16)^2, first at pixel 27 of 64; the
  // film of 96 x 128 is 48 x 64 at left = 8, so that x = (27.5 - 8) * 2
  check(std::abs(big.score - 1 / (1 + std::exp(-1.5))) < 1e-9 && big.positive == 1, "score");
  check(std::string(big.label) == "Big \"one\"" && big.localized == 1 && big.boxes == 1, "label and box");
  check(std::abs(big.peak_value - 10 * 225 / 256.) < 1e-5, "peak value");
  check(big.peak_x == 39 && big.peak_y == 55, "the first maximum in reading order");
  msloc_box box{};
  check(msloc_get_boxes(localizer, 0, &box, 1) == MSLOC_OK && std::abs(box.score - big.score) < 1e-12, "its score");
  check(box.x < 39 && box.x + box.w > 39 && box.y < 55 && box.y + box.h > 55, "the box holds the peak");
  const msloc_finding small = finding_of(localizer, 1);
  check(small.positive == 0 && small.localized == 0 && small.boxes == 0, "a negative class is not localized");
  check(msloc_get_boxes(localizer, 1, &box, 1) == MSLOC_NO_RESULT, "so it has no boxes to ask for");

  std::vector<float> map(std::size_t{64} * 64);
  check(msloc_get_map(localizer, 0, map.data(), map.size() - 1) == MSLOC_BUFFER_TOO_SMALL, "a map needs its room");
  check(msloc_get_map(localizer, 0, map.data(), map.size()) == MSLOC_OK, "a map");
  check(std::abs(static_cast<double>(map[27 * 64 + 27]) - big.peak_value) < 1e-6, "of the whole input");
  float weights[2] = {};
  check(msloc_get_relevance(localizer, 1, weights, 2) == MSLOC_OK && weights[0] == 0.5F, "relevance");
  msloc_summary summary = MSLOC_SUMMARY_INIT;
  check(msloc_get_summary(localizer, &summary) == MSLOC_OK && summary.left == 8 && summary.width == 48, "geometry");
  check(summary.positive == 1 && summary.warnings == 0, "a bright middle is no negative");
  film.pixels.photometric = MSLOC_MONOCHROME1;
  check(msloc_localize(localizer, &film.pixels, nullptr) == MSLOC_OK, "the negative of the film");
  check(msloc_get_summary(localizer, &summary) == MSLOC_OK && summary.warnings == MSLOC_WARNING_POLARITY, "is noticed");
}

msloc_summary summary_of(msloc_localizer* localizer) {
  msloc_summary summary = MSLOC_SUMMARY_INIT;
  check(msloc_get_summary(localizer, &summary) == MSLOC_OK, "a summary");
  return summary;
}

bool positive(msloc_localizer* localizer, std::uint32_t k) { return finding_of(localizer, k).positive == 1; }

void test_a_positive_class_has_a_box() {
  script = {};
  const Opened localizer;
  Film film;
  check(msloc_localize(localizer, &film.pixels, nullptr) == MSLOC_OK, "a map that is flat");
  const msloc_finding flat = finding_of(localizer, 0);
  check(flat.score >= flat.threshold && flat.positive == 0 && flat.localized == 1 && flat.boxes == 0, "is negative");
  check(summary_of(localizer).positive == 0, "so is the film");
  check(std::isnan(summary_of(localizer).abnormal) && summary_of(localizer).abnormal_threshold == 0, "without a gate");
  raise(0, {3 * 8 + 3}, 40);
  check(msloc_localize(localizer, &film.pixels, nullptr) == MSLOC_OK && positive(localizer, 0), "a map with a region");
  raise(1, {3 * 8 + 3}, 40);
  msloc_request request = MSLOC_REQUEST_INIT;
  request.all_classes = 1;
  check(msloc_localize(localizer, &film.pixels, &request) == MSLOC_OK, "all classes");
  check(finding_of(localizer, 1).boxes == 1 && !positive(localizer, 1), "boxes alone make no class positive");
  check(summary_of(localizer).positive == 1, "one of two");
}

/// A bundle whose gate gives 0.475285 for the logits 3, -3 (test_profile.cpp).
class Gated {
 public:
  explicit Gated(const std::string& profile_members, const std::string& members = "") : folder_(folder + ".gated") {
    write_bundle(folder_, R"("abnormal": {"weights": [0.5, 0.25], "bias": -1}, )" + members, profile_members);
  }
  ~Gated() { std::filesystem::remove_all(folder_); }
  Gated(const Gated&) = delete;
  Gated& operator=(const Gated&) = delete;

  [[nodiscard]] msloc_options options() const {
    msloc_options options = MSLOC_OPTIONS_INIT;
    options.bundle = folder_.c_str();
    return options;
  }

 private:
  std::string folder_;
};

void test_the_gate() {
  script = {};
  raise(0, {3 * 8 + 3}, 40);
  Film film;
  for (const auto& [threshold, passes] : {std::pair{"0.47528", true}, {"0.47529", false}, {"0", true}, {"1", false}}) {
    const Gated bundle(R"("film": )" + std::string(threshold) + ", ");
    const Opened localizer(bundle.options());
    check(msloc_localize(localizer, &film.pixels, nullptr) == MSLOC_OK, msloc_last_error(localizer));
    const msloc_summary summary = summary_of(localizer);
    check(summary.abnormal == 0.475285147745362F, "p_abnormal");
    check(summary.abnormal_threshold == std::stof(threshold), "its threshold");
    check(positive(localizer, 0) == passes && summary.positive == (passes ? 1U : 0U), threshold);
    check(finding_of(localizer, 0).localized == (passes ? 1U : 0U), "a film that does not pass is not localized");
  }
  const Gated open("");
  const Opened localizer(open.options());
  check(msloc_localize(localizer, &film.pixels, nullptr) == MSLOC_OK && positive(localizer, 0), "no film threshold");
  check(summary_of(localizer).abnormal > 0.47F && summary_of(localizer).abnormal_threshold == 0, "an open gate");
}

void test_a_film_that_does_not_pass_fuses_nothing() {
  script = {};
  const Gated bundle(R"("film": 0.6, )");
  const Opened localizer(bundle.options());
  script.cams[0].assign(script.cams[0].size(), std::numeric_limits<float>::quiet_NaN());
  Film film;
  check(msloc_localize(localizer, &film.pixels, nullptr) == MSLOC_OK, "its maps are not looked at");
  msloc_request request = MSLOC_REQUEST_INIT;
  request.all_classes = 1;
  check(msloc_localize(localizer, &film.pixels, &request) == MSLOC_BACKEND_FAILED, "but where all are asked for");
  script = {};
  raise(0, {3 * 8 + 3}, 40);
  check(msloc_localize(localizer, &film.pixels, &request) == MSLOC_OK, "all classes");
  check(finding_of(localizer, 0).boxes == 1 && !positive(localizer, 0), "are localized, and none is positive");
}

void test_the_region_rule() {
  script = {};
  raise(0, {3 * 8 + 3}, 40);  // one region
  Film film;
  for (const auto& [rule, boxes] : {std::pair{R"("regions": {"min_area": 40}, )", 1U},
                                    {R"("regions": {"min_area": 1000, "min_share": 0.5}, )", 0U}}) {
    const Gated bundle("", rule);
    const Opened localizer(bundle.options());
    check(msloc_localize(localizer, &film.pixels, nullptr) == MSLOC_OK, msloc_last_error(localizer));
    check(finding_of(localizer, 0).boxes == boxes && positive(localizer, 0) == (boxes == 1), rule);
  }
}

/// Programs of the first header: their structs end before `abnormal`.
void test_structs_of_the_first_header() {
  script = {};
  const Gated bundle("");
  const Opened localizer(bundle.options());
  Film film;
  check(msloc_localize(localizer, &film.pixels, nullptr) == MSLOC_OK, msloc_last_error(localizer));
  std::vector<std::uint32_t> first(14, 0xABABABAB);  // all that the caller has
  first[0] = 56;
  void* const summary = first.data();
  check(msloc_get_summary(localizer, static_cast<msloc_summary*>(summary)) == MSLOC_OK, "the first msloc_summary");
  check(first[0] == 56 && first[3] == 96 && first[4] == 128 && first[13] == 0, "all of it is filled");
  for (const std::uint32_t size : {52U, 60U, 68U}) {
    msloc_summary other = MSLOC_SUMMARY_INIT;
    other.struct_size = size;
    check(msloc_get_summary(localizer, &other) == MSLOC_STRUCT_SIZE, "a size of no header");
  }
  std::vector<double> deviation(5);
  void* const data = deviation.data();
  static_cast<msloc_deviation*>(data)->struct_size = 40;
  check(msloc_self_test(localizer, static_cast<msloc_deviation*>(data)) == MSLOC_GOLDEN_MISSING, "its msloc_deviation");
}

void test_strongest_boxes_are_kept() {
  script = {};
  std::vector<float>& fine = script.cams[0];  // 20 islands, each higher than the one before
  int islands = 0;
  for (std::size_t y = 1; y < 16; y += 3)
    for (std::size_t x = 3; x < 13; x += 3) fine[16 * y + x] = 20 + static_cast<float>(islands++);
  const Opened localizer;
  Film film;
  check(msloc_localize(localizer, &film.pixels, nullptr) == MSLOC_OK, msloc_last_error(localizer));
  const msloc_finding finding = finding_of(localizer, 0);
  check(finding.boxes == 16 && finding.boxes_found == 20, std::to_string(finding.boxes_found) + " boxes");
  std::vector<msloc_box> boxes(16, msloc_box{});
  check(msloc_get_boxes(localizer, 0, boxes.data(), 15) == MSLOC_BUFFER_TOO_SMALL && boxes[0].w == 0, "all or none");
  check(msloc_get_boxes(localizer, 0, boxes.data(), 16) == MSLOC_OK, "sixteen");
  check(boxes[0].x > boxes[1].x && boxes[0].y == boxes[1].y, "the last island is the strongest");
  for (std::size_t i = 1; i < 16; ++i) check(boxes[i - 1].score > boxes[i].score, "strongest first");
}

void test_bad_calls() {
  script = {};
  const Opened localizer;
  Film film;
  msloc_finding finding = MSLOC_FINDING_INIT;
  check(std::string(msloc_last_error(localizer)).empty(), "no error yet");
  check(msloc_get_finding(localizer, 0, &finding) == MSLOC_NO_RESULT, "no film yet");
  check(msloc_localize(nullptr, &film.pixels, nullptr) == MSLOC_ARGUMENT, "no localizer");
  check(msloc_localize(localizer, nullptr, nullptr) == MSLOC_ARGUMENT, "no pixels");
  check(msloc_cancel(nullptr) == MSLOC_ARGUMENT && msloc_open(nullptr, nullptr) == MSLOC_ARGUMENT, "nothing at all");
  msloc_close(nullptr);
  for (const std::uint32_t size : {0U, 4U, 1000000U}) {
    msloc_pixels pixels = film.pixels;
    pixels.struct_size = size;
    check(msloc_localize(localizer, &pixels, nullptr) == MSLOC_STRUCT_SIZE, "a foreign msloc_pixels");
    msloc_request request = MSLOC_REQUEST_INIT;
    request.struct_size = size;
    check(msloc_localize(localizer, &film.pixels, &request) == MSLOC_STRUCT_SIZE, "a foreign msloc_request");
    msloc_options options = MSLOC_OPTIONS_INIT;
    options.struct_size = size;
    msloc_localizer* other = localizer;
    check(msloc_open(&options, &other) == MSLOC_STRUCT_SIZE && other == nullptr, "a foreign msloc_options");
  }
  check(msloc_localize(localizer, &film.pixels, nullptr) == MSLOC_OK, "it still works");
  finding.struct_size = 8;
  check(msloc_get_finding(localizer, 0, &finding) == MSLOC_STRUCT_SIZE, "a foreign msloc_finding");
  finding.struct_size = sizeof finding;
  check(msloc_get_finding(localizer, 2, &finding) == MSLOC_ARGUMENT, "a class too far");
  check(msloc_get_boxes(localizer, 0, nullptr, 0) == MSLOC_OK, "no boxes need no room");
  check(msloc_get_map(localizer, 0, nullptr, 5000) == MSLOC_ARGUMENT, "a map to nowhere");
  check(msloc_self_test(localizer, nullptr) == MSLOC_GOLDEN_MISSING, "a bundle without golden result");
  check(msloc_get_finding(localizer, 0, &finding) == MSLOC_NO_RESULT, "after a failure there is no result");

  msloc_pixels pixels = film.pixels;
  pixels.row_stride = 95;
  check(msloc_localize(localizer, &pixels, nullptr) == MSLOC_ARGUMENT, "a stride too small");
  check(std::string(msloc_last_error(localizer)).find("got 95") != std::string::npos, "is named");
  pixels = film.pixels;
  pixels.device_data = pixels.data;
  check(msloc_localize(localizer, &pixels, nullptr) == MSLOC_ARGUMENT, "samples at two places");
  pixels.data = nullptr;
  check(msloc_localize(localizer, &pixels, nullptr) == MSLOC_BACKEND_DEVICE, "an engine without films on the device");
  check(std::string(msloc_last_error(localizer)) ==
            "expected samples in data, as fake 1 CPU has no films on the device, got device_data; copy them to the host",
        "says so");
  pixels.data = film.samples.data();
  pixels.struct_size = offsetof(msloc_pixels, device_data);
  check(msloc_localize(localizer, &pixels, nullptr) == MSLOC_OK, "an earlier header has no device_data");
  const std::vector<std::uint8_t> flat(film.samples.size(), 7);
  pixels = film.pixels;
  pixels.data = flat.data();
  check(msloc_localize(localizer, &pixels, nullptr) == MSLOC_CONSTANT, "a film without a picture");
  check(std::string(msloc_status_text(MSLOC_CONSTANT)) == "constant", "its name");
  check(std::string(msloc_status_text(-1)) == "unknown", "a status that is none");

  check(msloc_localize_dicom(localizer, "film.dcm", nullptr) == MSLOC_DICOM_MISSING, "a build without DCMTK");
  check(std::string(msloc_last_error(localizer)).find("MSLOC_WITH_DCMTK") != std::string::npos, "says how to get it");

  msloc_options options = MSLOC_OPTIONS_INIT;
  char error[16] = "";
  options.error = error;
  options.error_size = sizeof error;
  msloc_localizer* other = nullptr;
  check(msloc_open(&options, &other) == MSLOC_ARGUMENT && error[14] != 0 && error[15] == 0, "a sentence cut to fit");
  options.bundle = folder.c_str();
  options.max_boxes = 5;
  check(msloc_open(&options, &other) == MSLOC_ARGUMENT, "too few boxes");
  options.max_boxes = 0;
  options.threads = 257;
  check(msloc_open(&options, &other) == MSLOC_ARGUMENT, "too many threads");
  options.threads = 0;
  options.profile = "none";
  check(msloc_open(&options, &other) == MSLOC_PROFILE_UNKNOWN && other == nullptr, "an unknown profile");
}

void test_engine_that_fails() {
  script = {};
  const Opened localizer;
  Film film;
  script.logits[1] = std::numeric_limits<float>::quiet_NaN();
  check(msloc_localize(localizer, &film.pixels, nullptr) == MSLOC_BACKEND_FAILED, "a logit that is no number");
  script.logits[1] = 0;
  script.cams[0].assign(script.cams[0].size(), std::numeric_limits<float>::quiet_NaN());
  check(msloc_localize(localizer, &film.pixels, nullptr) == MSLOC_BACKEND_FAILED, "a map of no numbers");
  script = {};
  script.cams[1][7] = std::numeric_limits<float>::infinity();  // of a class that is a candidate
  check(msloc_localize(localizer, &film.pixels, nullptr) == MSLOC_BACKEND_FAILED, "one cell that is no number");
  msloc_options options = MSLOC_OPTIONS_INIT;
  options.bundle = folder.c_str();
  msloc_localizer* other = nullptr;
  check(msloc_open(&options, &other) == MSLOC_BACKEND_FAILED && other == nullptr, "it is not opened with such maps");
}

void test_deadline_and_cancel() {
  script = {};
  const Opened localizer;
  Film film;
  msloc_request request = MSLOC_REQUEST_INIT;
  request.deadline_ms = 0;
  check(msloc_localize(localizer, &film.pixels, &request) == MSLOC_DEADLINE, "a deadline that has passed");
  request.deadline_ms = 20;
  script.during = [] { std::this_thread::sleep_for(std::chrono::milliseconds(30)); };
  check(msloc_localize(localizer, &film.pixels, &request) == MSLOC_DEADLINE, "a network that takes too long");
  request.deadline_ms = 60000;
  check(msloc_localize(localizer, &film.pixels, &request) == MSLOC_OK, "time enough");

  script.during = [&] { check(msloc_cancel(localizer) == MSLOC_OK, "cancelled from within"); };
  check(msloc_localize(localizer, &film.pixels, nullptr) == MSLOC_CANCELLED, "while the network runs");
  script.during = nullptr;
  check(msloc_cancel(localizer) == MSLOC_OK, "cancelled where nothing runs");
  check(msloc_localize(localizer, &film.pixels, nullptr) == MSLOC_OK, "the next one is not touched");
}

/// What a batch told of its films.
struct Batch {
  msloc_localizer* localizer = nullptr;
  std::vector<msloc_status> statuses;
  std::vector<std::uint32_t> heights;  // of the films that were localized
  std::vector<std::string> sentences;  // of the others
  std::function<void()> during;

  static void done(void* user, std::uint32_t i, msloc_status status) {
    auto& batch = *static_cast<Batch*>(user);
    check(i == batch.statuses.size(), "films come in their order");
    batch.statuses.push_back(status);
    if (status != MSLOC_OK) batch.sentences.emplace_back(msloc_last_error(batch.localizer));
    msloc_summary summary = MSLOC_SUMMARY_INIT;
    check((msloc_get_summary(batch.localizer, &summary) == MSLOC_OK) == (status == MSLOC_OK), "a result, or none");
    if (status == MSLOC_OK) batch.heights.push_back(summary.image_height);
    if (batch.during) batch.during();
  }

  msloc_status run(const std::vector<const msloc_pixels*>& films, const msloc_request* request = nullptr) {
    statuses.clear();
    return msloc_localize_batch(localizer, films.data(), static_cast<std::uint32_t>(films.size()), request, done, this);
  }
};

void test_batch() {
  script = {};
  raise(0, {27}, 40);
  const Opened localizer;
  Film film;
  Film smaller;
  Film refused;
  smaller.pixels.height = 64;
  refused.pixels.width = 3;
  Batch batch;
  batch.localizer = localizer;
  using Statuses = std::vector<msloc_status>;
  check(batch.run({&film.pixels, &refused.pixels, nullptr, &smaller.pixels}) == MSLOC_TOO_SMALL,
        "the first that failed");
  check(batch.statuses == Statuses{MSLOC_OK, MSLOC_TOO_SMALL, MSLOC_ARGUMENT, MSLOC_OK}, "each has its status");
  check(batch.heights == std::vector<std::uint32_t>{128, 64}, "each has its result");
  check(batch.sentences.size() == 2 && batch.sentences[0].find("at least 32") != std::string::npos, "and its sentence");
  check(finding_of(localizer, 0).positive == 1, "the last one's result stays");
  check(batch.run({}) == MSLOC_OK && batch.statuses.empty(), "no film");
  check(msloc_localize_batch(localizer, nullptr, 1, nullptr, Batch::done, &batch) == MSLOC_ARGUMENT, "no films");

  batch.during = [&] {
    check(msloc_localize(localizer, &film.pixels, nullptr) == MSLOC_BUSY, "no localization from within");
    std::thread other([&] {
      msloc_summary summary = MSLOC_SUMMARY_INIT;
      check(msloc_get_summary(localizer, &summary) == MSLOC_BUSY, "no other thread reads");
    });
    other.join();
    if (batch.statuses.size() == 2) check(msloc_cancel(localizer) == MSLOC_OK, "cancelled from within");
  };
  check(batch.run({&film.pixels, &film.pixels, &film.pixels, &film.pixels}) == MSLOC_CANCELLED, "what is left");
  check(batch.statuses == Statuses{MSLOC_OK, MSLOC_OK, MSLOC_CANCELLED, MSLOC_CANCELLED}, "after the cancellation");

  batch.during = nullptr;
  msloc_request request = MSLOC_REQUEST_INIT;
  request.deadline_ms = 40;
  script.during = [] { std::this_thread::sleep_for(std::chrono::milliseconds(60)); };
  check(batch.run({&film.pixels, &film.pixels}, &request) == MSLOC_DEADLINE, "one deadline for all");
  check(batch.statuses == Statuses{MSLOC_DEADLINE, MSLOC_DEADLINE}, "the second film has not begun");
}

void test_input() {
  script = {};
  const Opened localizer;
  std::vector<float> input(std::size_t{64} * 64, -1);
  check(msloc_get_input(localizer, input.data(), input.size()) == MSLOC_NO_RESULT, "before a film");
  Film film;
  check(msloc_localize(localizer, &film.pixels, nullptr) == MSLOC_OK, msloc_last_error(localizer));
  check(msloc_get_input(localizer, input.data(), input.size() - 1) == MSLOC_BUFFER_TOO_SMALL, "a number short");
  check(msloc_get_input(localizer, nullptr, input.size()) == MSLOC_ARGUMENT, "no buffer");
  check(msloc_get_input(localizer, input.data(), input.size()) == MSLOC_OK, "the input");
  // 96 x 128 in 64 x 64: columns 8 to 55 hold the film, 10 and 200 of 255, and black is beside it.
  const std::size_t row = std::size_t{64} * 20;
  check(input[row] == 0 && input[row + 63] == 0, "black beside the film");
  check(std::abs(input[row + 9] - 10.0F / 255) < 1e-6F && std::abs(input[row + 32] - 200.0F / 255) < 1e-6F, "the film");
}

void test_threads() {
  script = {};
  const Opened first;
  const Opened second;
  Film film;
  std::atomic<bool> inside{false};
  std::atomic<bool> leave{false};
  std::atomic<int> runs{0};
  script.during = [&] {
    if (runs.fetch_add(1) != 0) return;
    inside = true;
    while (!leave) std::this_thread::yield();
  };
  std::thread thread([&] { check(msloc_localize(first, &film.pixels, nullptr) == MSLOC_OK, "in its thread"); });
  while (!inside) std::this_thread::yield();
  msloc_model model = MSLOC_MODEL_INIT;
  check(msloc_localize(first, &film.pixels, nullptr) == MSLOC_BUSY, "one localizer serves one call");
  check(msloc_get_model(first, &model) == MSLOC_BUSY, "whatever call it is");
  check(msloc_localize(second, &film.pixels, nullptr) == MSLOC_OK, "another one works beside it");
  leave = true;
  thread.join();
  check(msloc_get_model(first, &model) == MSLOC_OK && model.classes == 2, "free again");
}

void test_nothing_is_allocated() {
  script = {};
  raise(0, {9, 27, 30, 45}, 40);
  raise(1, {20, 22}, 30);
  msloc_options options = MSLOC_OPTIONS_INIT;
  options.threads = 3;
  options.audit = [](void*, const char* json) { check(json[0] == '{', "an audit line"); };
  const Opened localizer(options);
  Film film;
  msloc_request request = MSLOC_REQUEST_INIT;
  request.all_classes = 1;
  msloc_box boxes[16];
  std::vector<float> map(std::size_t{64} * 64);
  std::vector<std::uint16_t> large(std::size_t{1000} * 1200);
  for (std::size_t i = 0; i < large.size(); ++i) large[i] = static_cast<std::uint16_t>(i);
  msloc_pixels pixels = MSLOC_PIXELS_INIT;
  pixels.data = large.data();
  pixels.data_size = 2 * large.size();
  pixels.width = 1000;
  pixels.height = 1200;
  pixels.bits_allocated = 16;
  pixels.voi = MSLOC_VOI_SIGMOID;
  pixels.window_center = 30000;
  pixels.window_width = 20000;
  const msloc_pixels* const films[] = {&pixels, &film.pixels};
  allocations = 0;
  counting = true;
  ::operator delete(::operator new(1));  // no compiler leaves this one out
  for (int i = 0; i < 5; ++i) {
    for (const msloc_pixels* each : films) {
      const msloc_status status = msloc_localize(localizer, each, &request);
      const msloc_finding finding = finding_of(localizer, 0);
      if (status != MSLOC_OK || finding.boxes == 0 || msloc_get_boxes(localizer, 0, boxes, 16) != MSLOC_OK ||
          msloc_get_map(localizer, 1, map.data(), map.size()) != MSLOC_OK)
        std::abort();
    }
  }
  counting = false;
  check(allocations == 1, std::to_string(allocations) + " allocations, of which the test's own is one");
}

void test_log_and_audit() {
  script = {};
  raise(0, {3 * 8 + 3}, 40);
  Lines log;
  Lines audit;
  msloc_options options = MSLOC_OPTIONS_INIT;
  options.log = Lines::log;
  options.log_user = &log;
  options.audit = Lines::audit;
  options.audit_user = &audit;
  const Opened localizer(options);
  Film film;
  check(log.lines.size() == 1 && log.lines[0] == "0 opened fake 1 in fake 1 CPU, profile youden", "opening is logged");
  check(msloc_localize(localizer, &film.pixels, nullptr) == MSLOC_OK, "a film");
  film.pixels.voi = MSLOC_VOI_LINEAR;
  check(msloc_localize(localizer, &film.pixels, nullptr) == MSLOC_BAD_WINDOW, "a film with a window of no width");
  check(log.lines.size() == 2 && log.lines[1].find("2 expected a window_width") == 0, "failures are logged");
  check(audit.lines.size() == 2, "both are audited");
  film.pixels.width = 31;
  check(msloc_localize(localizer, &film.pixels, nullptr) == MSLOC_TOO_SMALL, "a film too small");
  film.pixels.width = 4'000'000'000;
  check(msloc_localize(localizer, &film.pixels, nullptr) == MSLOC_TOO_LARGE, "a film too large");
  check(audit.lines.size() == 4, "sizes that are refused are audited");
  check(audit.lines[2].find(R"("status":"too_small","image":{"width":31,"height":128})") != std::string::npos, "small");
  check(audit.lines[3].find(R"("status":"too_large","image":{"width":4000000000,)") != std::string::npos, "large");
  for (const char* part : {R"("schema":"msloc-edge/audit/1")", R"("status":"ok")", R"("width":96,"height":128)",
                           R"("abnormal":null,"scores":{"Big \"one\"":0.817574)",
                           R"("positive":["Big \"one\""],"boxes":1)", R"("network":)"})
    check(audit.lines[0].find(part) != std::string::npos, std::string("the audit holds ") + part);
  check(audit.lines[1].find(R"("status":"bad_window")") != std::string::npos, "the audit of a refused film");
  const Gated bundle(R"("film": 0.6, )");
  msloc_options gated = bundle.options();
  gated.audit = Lines::audit;
  gated.audit_user = &audit;
  const Opened other(gated);
  film = {};
  check(msloc_localize(other, &film.pixels, nullptr) == MSLOC_OK, "a film that does not pass the gate");
  check(audit.lines[4].find(R"("abnormal":{"score":0.475285,"threshold":0.600000,"positive":false},)") !=
            std::string::npos,
        "says why");
  check(audit.lines[4].find(R"("positive":[],"boxes":0)") != std::string::npos, "and has nothing");
  const Gated open("");
  msloc_options ungated = open.options();
  ungated.audit = Lines::audit;
  ungated.audit_user = &audit;
  const Opened third(ungated);
  check(msloc_localize(third, &film.pixels, nullptr) == MSLOC_OK, "a film of a profile without a film threshold");
  check(audit.lines[5].find(R"("score":0.475285,"threshold":null,"positive":true})") != std::string::npos, "passes");
}

}  // namespace

int main() {
  folder =
      (std::filesystem::temp_directory_path() / ("msloc_test_api." + std::to_string(std::random_device{}()))).string();
  write_bundle(folder);
  test_result();
  test_a_positive_class_has_a_box();
  test_the_gate();
  test_a_film_that_does_not_pass_fuses_nothing();
  test_the_region_rule();
  test_structs_of_the_first_header();
  test_strongest_boxes_are_kept();
  test_bad_calls();
  test_engine_that_fails();
  test_deadline_and_cancel();
  test_batch();
  test_input();
  test_threads();
  test_nothing_is_allocated();
  test_log_and_audit();
  script = {};
  std::filesystem::remove_all(folder);
  return finish();
}
