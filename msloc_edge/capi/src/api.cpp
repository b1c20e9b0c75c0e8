// The C functions of an open localizer.
#include <algorithm>
#include <memory>
#include <string>

#include "dicom.h"
#include "handle.h"
#include "selftest.h"
#include "status.h"
#include "window.h"

namespace {

using namespace msloc;

/// The time that a caller will wait.
class Patience {
 public:
  Patience(const std::atomic<Activity>& activity, std::uint32_t deadline_ms)
      : activity_(activity),
        deadline_ms_(deadline_ms),
        deadline_(Clock::now() + std::chrono::milliseconds(deadline_ms)) {}

  void check() const {
    if (activity_.load() == Activity::cancelled)
      throw Failure(MSLOC_CANCELLED, "expected to finish, got a call of msloc_cancel; localize the film again");
    if (deadline_ms_ != MSLOC_NO_DEADLINE && Clock::now() >= deadline_)
      throw Failure(MSLOC_DEADLINE, "expected to finish within " + std::to_string(deadline_ms_) +
                                        " ms, got no result by then; give it more time");
  }

 private:
  const std::atomic<Activity>& activity_;
  std::uint32_t deadline_ms_;
  Clock::time_point deadline_;
};

double ms_since(Clock::time_point begun) {
  return std::chrono::duration<double, std::milli>(Clock::now() - begun).count();
}

/// A checked msloc_request, whose deadline begins now.
struct Request {
  Request(const msloc_localizer& handle, const msloc_request* given)
      : all_classes(given != nullptr && checked(*given).all_classes == 1),
        patience(handle.activity, given == nullptr ? MSLOC_NO_DEADLINE : given->deadline_ms) {}

  bool all_classes;
  Patience patience;

 private:
  static const msloc_request& checked(const msloc_request& given) {
    check_struct(&given, "msloc_request");
    require(given.all_classes <= 1, "expected all_classes of 0 or 1, got another; fix it");
    return given;
  }
};

/// One film, audited: `localize` does the work.
template <class Localize>
void localize_audited(msloc_localizer& handle, const Patience& patience, const StatedSize& image,
                      const Localize& localize) {
  const Clock::time_point begun = Clock::now();
  const auto record = [&](msloc_status status) {
    const double passed = ms_since(begun);
    handle.total_ms = static_cast<float>(passed);
    if (handle.audit_to != nullptr)
      handle.audit_to(handle.audit_user, handle.audit.line(status, image, handle.localizer, passed));
  };
  try {
    patience.check();
    localize();
  } catch (const Failure& failure) {
    record(failure.status());
    throw;
  } catch (const std::bad_alloc&) {
    record(MSLOC_NO_MEMORY);
    throw;
  }
  if ((handle.localizer.summary().warnings & MSLOC_WARNING_POLARITY) != 0)
    handle.log(MSLOC_LOG_WARNING, "the film looks like a negative; its photometric interpretation may be wrong");
  record(MSLOC_OK);
}

void localize_pixels(msloc_localizer& handle, const msloc_pixels* given, const Request& request) {
  Localizer& work = handle.localizer;
  work.forget();
  check_struct(given, "msloc_pixels");
  const msloc_pixels pixels = copy_of(*given);
  localize_audited(handle, request.patience, {pixels.width, pixels.height}, [&] {
    const Film film = check_film(pixels, work.limits().max_pixels);
    make_table(pixels, film.bits, work.table());
    work.run(film, 0, request.all_classes, [&] { request.patience.check(); });
  });
}

/// Lets the calling thread read results, as long as it lives.
class Reading {
 public:
  explicit Reading(msloc_localizer& handle) : handle_(handle) { handle_.reader.store(std::this_thread::get_id()); }
  ~Reading() { handle_.reader.store({}); }
  Reading(const Reading&) = delete;
  Reading& operator=(const Reading&) = delete;
  Reading(Reading&&) = delete;
  Reading& operator=(Reading&&) = delete;

 private:
  msloc_localizer& handle_;
};

void require_result(const msloc_localizer& handle) {
  if (!handle.localizer.has_result())
    throw Failure(MSLOC_NO_RESULT, "expected a localized film, got none; call msloc_localize first");
}

void require_class(const msloc_localizer& handle, std::uint32_t k) {
  require(k < handle.localizer.findings().size(), "expected k below msloc_model.classes, got another; count from 0");
}

const Finding& finding_of(const msloc_localizer& handle, std::uint32_t k) {
  require_class(handle, k);
  require_result(handle);
  return handle.localizer.findings()[k];
}

void require_room(std::uint64_t needed, std::uint64_t capacity) {
  if (capacity < needed)
    throw Failure(MSLOC_BUFFER_TOO_SMALL, "expected a buffer for " + std::to_string(needed) + ", got one for " +
                                              std::to_string(capacity) + "; enlarge it");
}

std::uint64_t input_pixels(const msloc_localizer& handle) {
  const Size input = handle.localizer.bundle().input;
  return static_cast<std::uint64_t>(input.width) * static_cast<std::uint64_t>(input.height);
}

std::uint32_t u32(int value) { return static_cast<std::uint32_t>(value); }

}  // namespace

extern "C" {

const char* msloc_status_text(msloc_status status) { return status_name(status); }

uint32_t msloc_version(void) { return MSLOC_VERSION; }

const char* msloc_last_error(const msloc_localizer* localizer) { return localizer == nullptr ? "" : localizer->error; }

msloc_status msloc_localize(msloc_localizer* localizer, const msloc_pixels* pixels, const msloc_request* request) {
  return call(localizer, [&] {
    localizer->localizer.forget();
    localize_pixels(*localizer, pixels, Request(*localizer, request));
  });
}

msloc_status msloc_localize_dicom(msloc_localizer* localizer, const char* path, const msloc_request* request) {
  return call(localizer, [&] {
    Localizer& work = localizer->localizer;
    work.forget();
    require(path != nullptr, "expected the path of a DICOM file, got NULL; pass one");
    const Request asked(*localizer, request);
    StatedSize stated;
    localize_audited(*localizer, asked.patience, stated, [&] {
      const DicomFilm dicom = read_dicom(path, work.limits().max_pixels, work.table(), stated);
      asked.patience.check();
      work.run(dicom.film, dicom.warnings, asked.all_classes, [&] { asked.patience.check(); });
    });
  });
}

msloc_status msloc_localize_batch(msloc_localizer* localizer, const msloc_pixels* const* films, uint32_t count,
                                  const msloc_request* request, msloc_film_fn done, void* user) {
  msloc_status first = MSLOC_OK;  // of the films that failed
  const msloc_status called = call(localizer, [&] {
    localizer->localizer.forget();
    require(done != nullptr && (films != nullptr || count == 0),
            "expected films and a msloc_film_fn, got NULL; pass both");
    const Request asked(*localizer, request);
    for (std::uint32_t i = 0; i < count; ++i) {
      const msloc_status status = remembered(*localizer, [&] { localize_pixels(*localizer, films[i], asked); });
      if (first == MSLOC_OK) first = status;
      const Reading reading(*localizer);
      done(user, i, status);
    }
  });
  return called == MSLOC_OK ? first : called;
}

msloc_status msloc_cancel(msloc_localizer* localizer) {
  if (localizer == nullptr) return MSLOC_ARGUMENT;
  Activity running = Activity::running;
  localizer->activity.compare_exchange_strong(running, Activity::cancelled);
  return MSLOC_OK;
}

msloc_status msloc_get_model(msloc_localizer* localizer, msloc_model* model) {
  return read(localizer, [&] {
    check_struct(model, "msloc_model");
    const Bundle& bundle = localizer->localizer.bundle();
    fill(model,
         {0, u32(bundle.class_count()), u32(bundle.stage_count()), u32(bundle.input.width), u32(bundle.input.height),
          u32(localizer->localizer.limits().max_boxes), bundle.name.c_str(), bundle.version.c_str(),
          bundle.sha256.c_str(), bundle.profile.name.c_str(), localizer->localizer.engine().description().c_str()});
  });
}

msloc_status msloc_get_relevance(msloc_localizer* localizer, uint32_t k, float* weights, uint32_t capacity) {
  return read(localizer, [&] {
    require(weights != nullptr, "expected a buffer for weights, got NULL; pass one");
    require_class(*localizer, k);
    const Bundle& bundle = localizer->localizer.bundle();
    require_room(bundle.stages.size(), capacity);
    std::copy_n(bundle.relevance.data() + k * bundle.stages.size(), bundle.stages.size(), weights);
  });
}

msloc_status msloc_get_summary(msloc_localizer* localizer, msloc_summary* summary) {
  return read(localizer, [&] {
    check_struct(summary, "msloc_summary");
    require_result(*localizer);
    const Summary& film = localizer->localizer.summary();
    const Geometry& geometry = film.geometry;
    const auto& findings = localizer->localizer.findings();
    const auto positive = std::count_if(findings.begin(), findings.end(), [](const Finding& f) { return f.positive; });
    fill(summary, {0, film.warnings, static_cast<std::uint32_t>(positive), u32(geometry.image.width),
                   u32(geometry.image.height), u32(geometry.left), u32(geometry.top), u32(geometry.width),
                   u32(geometry.height), static_cast<float>(film.preprocess_ms), static_cast<float>(film.network_ms),
                   static_cast<float>(film.localize_ms), localizer->total_ms, 0, static_cast<float>(film.abnormal),
                   static_cast<float>(localizer->localizer.bundle().profile.film.value_or(0))});
  });
}

msloc_status msloc_get_finding(msloc_localizer* localizer, uint32_t k, msloc_finding* finding) {
  return read(localizer, [&] {
    check_struct(finding, "msloc_finding");
    const Finding& found = finding_of(*localizer, k);
    const Bundle& bundle = localizer->localizer.bundle();
    fill(finding,
         {0, found.positive ? 1U : 0U, bundle.classes[k].c_str(), found.score, bundle.profile.score[k], found.logit,
          bundle.profile.map[k], found.localized ? 1U : 0U, static_cast<std::uint32_t>(found.boxes.size()),
          u32(found.boxes_found), 0, found.peak_at.x, found.peak_at.y, static_cast<double>(found.peak.value)});
  });
}

msloc_status msloc_get_boxes(msloc_localizer* localizer, uint32_t k, msloc_box* boxes, uint32_t capacity) {
  return read(localizer, [&] {
    const Finding& found = finding_of(*localizer, k);
    if (!found.localized)
      throw Failure(MSLOC_NO_RESULT, "expected a localized class, got a negative one; set all_classes for its boxes");
    require_room(found.boxes.size(), capacity);
    require(boxes != nullptr || found.boxes.empty(), "expected a buffer for boxes, got NULL; pass one");
    std::copy(found.boxes.begin(), found.boxes.end(), boxes);
  });
}

msloc_status msloc_get_map(msloc_localizer* localizer, uint32_t k, float* map, uint64_t capacity) {
  return read(localizer, [&] {
    require(map != nullptr, "expected a buffer for the map, got NULL; pass one");
    finding_of(*localizer, k);
    require_room(input_pixels(*localizer), capacity);
    localizer->localizer.map(static_cast<int>(k), map);
  });
}

msloc_status msloc_get_input(msloc_localizer* localizer, float* input, uint64_t capacity) {
  return read(localizer, [&] {
    require(input != nullptr, "expected a buffer for the input, got NULL; pass one");
    require_result(*localizer);
    const std::uint64_t needed = input_pixels(*localizer);
    require_room(needed, capacity);
    std::copy_n(localizer->localizer.input(), needed, input);
  });
}

msloc_status msloc_self_test(msloc_localizer* localizer, msloc_deviation* deviation) {
  return call(localizer, [&] {
    if (deviation != nullptr) check_struct(deviation, "msloc_deviation");
    const Clock::time_point begun = Clock::now();
    const Patience patience(localizer->activity, MSLOC_NO_DEADLINE);
    localizer->localizer.forget();
    const Deviation worst = run_self_test(localizer->localizer, [&] { patience.check(); });
    localizer->total_ms = static_cast<float>(ms_since(begun));
    if (deviation != nullptr)
      fill(deviation, {0, u32(worst.classes_beyond), worst.logit, worst.value, worst.shift, worst.iou, worst.abnormal});
    if (!worst.within())
      throw Failure(MSLOC_SELF_TEST, "expected the golden result of the built-in film, got another for " +
                                         std::to_string(worst.classes_beyond) +
                                         " classes and an abnormal that differs by " + std::to_string(worst.abnormal) +
                                         "; take the device out of use");
  });
}

}  // extern "C"
