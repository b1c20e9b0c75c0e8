// libmsloc_edge for C++17: the calls of msloc_edge.h, whose words on threads, time and memory hold here too, with
// owners and values in place of handles and buffers. This header is all there is to it: link msloc_edge::msloc_edge.
//
// Example
// -------
//     msloc_edge::Options options;
//     options.bundle = "/opt/models/cxr-edge";
//     auto localizer = msloc_edge::Localizer::open(options);
//     if (!localizer) return std::puts(localizer.error().sentence.c_str()), 1;
//     if (auto test = localizer->self_test(); !test) return std::puts(test.error().sentence.c_str()), 1;
//
//     msloc_pixels film = msloc_edge::pixels(samples.data(), 2500, 3000, 12);  // 12 bits of std::uint16_t
//     film.voi = MSLOC_VOI_LINEAR, film.window_center = 2048, film.window_width = 4096;
//     auto result = localizer->localize(film);
//     if (!result) return std::puts(result.error().sentence.c_str()), 1;
//     for (const msloc_edge::Finding& finding : result->findings)
//       if (finding.positive)
//         std::printf("%s %.2f, %zu boxes\n", finding.label.c_str(), finding.score, finding.boxes.size());
//
// Errors
// ------
// Every call gives an Expected: its value, or an Error with a status and a sentence. Nothing here throws of itself (the
// standard library does, when memory runs out), and all of it compiles with -fno-exceptions. Who wants exceptions asks
// for them at the call: `localizer->localize(film).value()` throws msloc_edge::Exception.
#pragma once

#include <msloc_edge.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#if defined(__cpp_exceptions)
#include <stdexcept>
#endif

namespace msloc_edge {

/// The reason why a call gave no value.
struct Error {
  msloc_status status = MSLOC_INTERNAL;
  std::string sentence;  // expected, got, what to do

  /// The status's stable name, such as "bundle_hash".
  [[nodiscard]] const char* name() const noexcept { return msloc_status_text(status); }
};

#if defined(__cpp_exceptions)
/// Error as an exception, thrown by Expected::value alone.
class Exception : public std::runtime_error {
 public:
  explicit Exception(const Error& error)
      : std::runtime_error(std::string(error.name()) + ": " + error.sentence), status_(error.status) {}
  [[nodiscard]] msloc_status status() const noexcept { return status_; }

 private:
  msloc_status status_;
};
#endif

/// A value or an Error. Look before you take: `*` of an Error is undefined, as that of an empty std::optional.
template <class Value>
class Expected {
 public:
  Expected(Value value) : content_(std::in_place_index<0>, std::move(value)) {}
  Expected(Error error) : content_(std::in_place_index<1>, std::move(error)) {}

  explicit operator bool() const noexcept { return content_.index() == 0; }
  Value& operator*() & noexcept { return *std::get_if<0>(&content_); }
  const Value& operator*() const& noexcept { return *std::get_if<0>(&content_); }
  Value&& operator*() && noexcept { return std::move(*std::get_if<0>(&content_)); }
  Value* operator->() noexcept { return std::get_if<0>(&content_); }
  const Value* operator->() const noexcept { return std::get_if<0>(&content_); }
  [[nodiscard]] const Error& error() const noexcept { return *std::get_if<1>(&content_); }

#if defined(__cpp_exceptions)
  /// The value; throws Exception where there is none.
  Value& value() & {
    if (!*this) throw Exception(error());
    return **this;
  }
  Value&& value() && {
    if (!*this) throw Exception(error());
    return *std::move(*this);
  }
#endif

 private:
  std::variant<Value, Error> content_;
};

/// What msloc_options holds. An empty text, and 0, stand for the default.
struct Options {
  std::string bundle;  // the bundle's folder, UTF-8
  std::string profile;
  std::string engine;
  std::string device;
  std::string cache_folder;
  std::uint32_t threads = 0;
  std::uint64_t max_pixels = 0;
  std::uint32_t max_boxes = 0;                                            // for each class
  std::function<void(std::int32_t level, const char* message)> log = {};  // neither of these two may throw
  std::function<void(const char* json)> audit = {};
};

/// What msloc_request holds.
struct Request {
  bool all_classes = false;
  std::optional<std::chrono::milliseconds> deadline = {};
};

/// A class of a film, as msloc_finding has it.
struct Finding {
  std::string label;
  bool positive = false;
  double score = 0;      // calibrated probability
  double threshold = 0;  // of the score
  double logit = 0;
  double map_threshold = 0;  // logit units
  bool localized = false;    // peak and boxes are filled
  double peak_x = 0;         // pixels of the stored image
  double peak_y = 0;
  double peak_value = 0;         // logit units
  std::vector<msloc_box> boxes;  // strongest first
};

/// A localized film.
struct Result {
  msloc_summary film = MSLOC_SUMMARY_INIT;
  std::vector<Finding> findings;  // one for each class, in the bundle's order
};

/// Film of packed rows of samples, brighter = whiter, to be shown over its full range until `voi` says otherwise. The
/// samples stay the caller's.
///
/// bits  that count in a sample; 0: all
template <class Sample>
msloc_pixels pixels(const Sample* samples, std::uint32_t width, std::uint32_t height, std::uint32_t bits = 0) noexcept {
  static_assert(sizeof(Sample) <= 2, "samples have 8 or 16 bits");
  msloc_pixels film = MSLOC_PIXELS_INIT;
  film.data = samples;
  film.data_size = sizeof(Sample) * width * height;
  film.width = width;
  film.height = height;
  film.bits_allocated = 8 * sizeof(Sample);
  film.bits_stored = bits;
  film.is_signed = static_cast<Sample>(-1) < Sample{} ? 1 : 0;
  return film;
}

/// An open bundle, closed at the end.
class Localizer {
 public:
  static Expected<Localizer> open(const Options& options) {
    auto callbacks = std::make_unique<Callbacks>(Callbacks{options.log, options.audit});
    char sentence[512] = "";
    const auto text = [](const std::string& given) { return given.empty() ? nullptr : given.c_str(); };
    msloc_options given = MSLOC_OPTIONS_INIT;
    given.threads = options.threads;
    given.bundle = text(options.bundle);
    given.profile = text(options.profile);
    given.engine = text(options.engine);
    given.device = text(options.device);
    given.cache_folder = text(options.cache_folder);
    given.max_pixels = options.max_pixels;
    given.max_boxes = options.max_boxes;
    given.error = sentence;
    given.error_size = sizeof sentence;
    if (options.log) given.log = Callbacks::on_log;
    if (options.audit) given.audit = Callbacks::on_audit;
    given.log_user = given.audit_user = callbacks.get();
    msloc_localizer* handle = nullptr;
    const msloc_status status = msloc_open(&given, &handle);
    if (status != MSLOC_OK) return Error{status, sentence};
    return Localizer(handle, std::move(callbacks));
  }

  Expected<Result> localize(const msloc_pixels& film, const Request& request = {}) {
    const msloc_request given = given_of(request);
    return result_of(msloc_localize(get(), &film, &given));
  }

  /// `path` UTF-8. MSLOC_DICOM_MISSING in a library that was built without DCMTK.
  Expected<Result> localize_dicom(const std::string& path, const Request& request = {}) {
    const msloc_request given = given_of(request);
    return result_of(msloc_localize_dicom(get(), path.c_str(), &given));
  }

  /// One Expected for each film: one that is refused keeps no other back. The request's deadline is that of all.
  std::vector<Expected<Result>> localize_batch(const std::vector<msloc_pixels>& films, const Request& request = {}) {
    std::vector<const msloc_pixels*> pointers;
    for (const msloc_pixels& film : films) pointers.push_back(&film);
    const msloc_request given = given_of(request);
    Gathered gathered{*this, {}};
    gathered.results.reserve(films.size());
    const msloc_status status = msloc_localize_batch(get(), pointers.data(), static_cast<std::uint32_t>(films.size()),
                                                     &given, Gathered::on_film, &gathered);
    if (gathered.results.empty()) gathered.results.assign(films.size(), error_of(status));  // such as MSLOC_BUSY
    return std::move(gathered.results);
  }

  /// How far this machine is from the model's maker. Anything but a value: take the device out of use.
  Expected<msloc_deviation> self_test() {
    msloc_deviation deviation = MSLOC_DEVIATION_INIT;
    const msloc_status status = msloc_self_test(get(), &deviation);
    return with(status, deviation);
  }

  /// What was opened; its texts live as long as this.
  Expected<msloc_model> model() {
    msloc_model model = MSLOC_MODEL_INIT;
    const msloc_status status = msloc_get_model(get(), &model);
    return with(status, model);
  }

  /// The layer relevance weights of class k, one for each stage.
  Expected<std::vector<float>> relevance(std::uint32_t k) {
    const auto opened = model();
    if (!opened) return opened.error();
    std::vector<float> weights(opened->stages);
    const msloc_status status = msloc_get_relevance(get(), k, weights.data(), opened->stages);
    return with(status, std::move(weights));
  }

  /// The localization map of class k of the last film: input_height x input_width, logit units.
  Expected<std::vector<float>> map(std::uint32_t k) {
    return image([&](float* out, std::uint64_t size) { return msloc_get_map(get(), k, out, size); });
  }

  /// What the model saw of the last film: input_height x input_width, 0 black, 1 white.
  Expected<std::vector<float>> input() {
    return image([&](float* out, std::uint64_t size) { return msloc_get_input(get(), out, size); });
  }

  /// Ends the call that runs in another thread, at its next stage.
  void cancel() noexcept { msloc_cancel(get()); }

  /// For calls of msloc_edge.h.
  [[nodiscard]] msloc_localizer* get() const noexcept { return handle_.get(); }

 private:
  struct Callbacks {
    std::function<void(std::int32_t, const char*)> log;
    std::function<void(const char*)> audit;

    static void on_log(void* user, std::int32_t level, const char* message) {
      static_cast<Callbacks*>(user)->log(level, message);
    }
    static void on_audit(void* user, const char* json) { static_cast<Callbacks*>(user)->audit(json); }
  };

  struct Gathered {
    Localizer& localizer;
    std::vector<Expected<Result>> results;

    static void on_film(void* user, std::uint32_t /*i*/, msloc_status status) {
      auto& gathered = *static_cast<Gathered*>(user);
      gathered.results.push_back(gathered.localizer.result_of(status));
    }
  };

  struct Close {
    void operator()(msloc_localizer* handle) const noexcept { msloc_close(handle); }
  };

  Localizer(msloc_localizer* handle, std::unique_ptr<Callbacks> callbacks)
      : callbacks_(std::move(callbacks)), handle_(handle) {}

  static msloc_request given_of(const Request& request) {
    msloc_request given = MSLOC_REQUEST_INIT;
    given.all_classes = request.all_classes ? 1 : 0;
    if (request.deadline) {
      const auto ms = request.deadline->count();
      given.deadline_ms = ms < 0 ? 0 : ms < MSLOC_NO_DEADLINE ? static_cast<std::uint32_t>(ms) : MSLOC_NO_DEADLINE;
    }
    return given;
  }

  [[nodiscard]] Error error_of(msloc_status status) const { return {status, msloc_last_error(get())}; }

  template <class Value>
  Expected<Value> with(msloc_status status, Value value) const {
    if (status != MSLOC_OK) return error_of(status);
    return value;
  }

  template <class Fill>
  Expected<std::vector<float>> image(const Fill& fill) {
    const auto opened = model();
    if (!opened) return opened.error();
    std::vector<float> out(std::size_t{opened->input_width} * opened->input_height);
    const msloc_status status = fill(out.data(), out.size());
    return with(status, std::move(out));
  }

  Expected<Result> result_of(msloc_status status) {
    if (status != MSLOC_OK) return error_of(status);
    Result result;
    const auto opened = model();
    if (!opened) return opened.error();
    status = msloc_get_summary(get(), &result.film);
    for (std::uint32_t k = 0; status == MSLOC_OK && k < opened->classes; ++k)
      status = add_finding(k, result.findings.emplace_back());
    return with(status, std::move(result));
  }

  msloc_status add_finding(std::uint32_t k, Finding& finding) {
    msloc_finding found = MSLOC_FINDING_INIT;
    const msloc_status status = msloc_get_finding(get(), k, &found);
    if (status != MSLOC_OK) return status;
    finding = {
        found.label,          found.positive == 1, found.score,  found.threshold,  found.logit, found.map_threshold,
        found.localized == 1, found.peak_x,        found.peak_y, found.peak_value, {}};
    if (!finding.localized) return MSLOC_OK;
    finding.boxes.resize(found.boxes);
    return msloc_get_boxes(get(), k, finding.boxes.data(), found.boxes);
  }

  std::unique_ptr<Callbacks> callbacks_;  // closing may log: they go after the handle
  std::unique_ptr<msloc_localizer, Close> handle_;
};

}  // namespace msloc_edge
