// The object behind msloc_localizer, and the guard of its calls: one at a time, failures turned into statuses.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <exception>
#include <memory>
#include <new>
#include <string>
#include <thread>

#include "audit.h"
#include "failure.h"
#include "localizer.h"
#include "msloc_edge.h"

namespace msloc {

enum class Activity { idle, running, cancelled };

}  // namespace msloc

struct msloc_localizer {
  msloc_localizer(const msloc_options& options, msloc::Bundle bundle, std::unique_ptr<msloc::Engine> engine,
                  const msloc::Limits& limits)
      : localizer(std::move(bundle), std::move(engine), limits),
        audit(localizer.bundle(), localizer.engine().description()),
        log_to(options.log),
        log_user(options.log_user),
        audit_to(options.audit),
        audit_user(options.audit_user) {}

  void log(int32_t level, const char* message) const {
    if (log_to != nullptr) log_to(log_user, level, message);
  }

  msloc::Localizer localizer;
  msloc::Audit audit;
  msloc_log_fn log_to;
  void* log_user;
  msloc_audit_fn audit_to;
  void* audit_user;
  std::atomic<msloc::Activity> activity{msloc::Activity::idle};
  std::atomic<std::thread::id> reader{};  // the thread that is in the msloc_film_fn of a batch
  float total_ms = 0;
  char error[512] = "";
};

namespace msloc {

/// Runs `work` and turns what it throws into a status and a sentence.
template <class Work, class Report>
msloc_status attempt(const Work& work, const Report& report) noexcept {
  const auto failed = [&](msloc_status status, const char* sentence) {
    report(status, sentence);
    return status;
  };
  try {
    work();
    return MSLOC_OK;
  } catch (const Failure& failure) {
    return failed(failure.status(), failure.what());
  } catch (const std::bad_alloc&) {
    return failed(MSLOC_NO_MEMORY, "expected enough memory, got none; free some");
  } catch (const std::exception& error) {
    return failed(MSLOC_INTERNAL, error.what());
  } catch (...) {
    return failed(MSLOC_INTERNAL, "unexpected error; please report it");
  }
}

/// Runs `work`; its failure is remembered, and logged.
template <class Work>
msloc_status remembered(msloc_localizer& localizer, const Work& work) noexcept {
  return attempt(work, [&](msloc_status, const char* sentence) {
    std::snprintf(localizer.error, sizeof localizer.error, "%s", sentence);
    localizer.log(MSLOC_LOG_ERROR, localizer.error);
  });
}

/// One call on a localizer: the only one at its time.
template <class Work>
msloc_status call(msloc_localizer* localizer, const Work& work) noexcept {
  if (localizer == nullptr) return MSLOC_ARGUMENT;
  Activity idle = Activity::idle;
  if (!localizer->activity.compare_exchange_strong(idle, Activity::running)) return MSLOC_BUSY;
  const msloc_status result = remembered(*localizer, work);
  localizer->activity.store(Activity::idle);
  return result;
}

/// A call that only reads: as `call`, and from within the msloc_film_fn of a batch.
template <class Work>
msloc_status read(msloc_localizer* localizer, const Work& work) noexcept {
  const bool within = localizer != nullptr && localizer->reader.load() == std::this_thread::get_id();
  return within ? remembered(*localizer, work) : call(localizer, work);
}

inline void require(bool fits, const char* sentence) {
  if (!fits) throw Failure(MSLOC_ARGUMENT, sentence);
}

/// The sizes that a struct has had, from the first header to this one.
template <class Struct>
inline constexpr std::array<std::size_t, 1> kSizes{sizeof(Struct)};
template <>
inline constexpr std::array<std::size_t, 2> kSizes<msloc_pixels>{offsetof(msloc_pixels, device_data),
                                                                 sizeof(msloc_pixels)};
template <>
inline constexpr std::array<std::size_t, 2> kSizes<msloc_summary>{offsetof(msloc_summary, abnormal),
                                                                  sizeof(msloc_summary)};
template <>
inline constexpr std::array<std::size_t, 2> kSizes<msloc_deviation>{offsetof(msloc_deviation, abnormal),
                                                                    sizeof(msloc_deviation)};

/// Refuses a struct of the caller's whose size is that of no header so far.
template <class Struct>
void check_struct(const Struct* given, const char* name) {
  if (given == nullptr) throw Failure(MSLOC_ARGUMENT, std::string("expected a ") + name + ", got NULL; pass one");
  if (std::find(kSizes<Struct>.begin(), kSizes<Struct>.end(), given->struct_size) == kSizes<Struct>.end())
    throw Failure(MSLOC_STRUCT_SIZE, std::string("expected a ") + name + " of " + std::to_string(sizeof(Struct)) +
                                         " bytes, got struct_size " + std::to_string(given->struct_size) +
                                         "; begin with its _INIT, and use the header of this library");
}

/// Copies a checked struct of the caller's, of which an earlier header has the first members only; the others are 0.
template <class Struct>
Struct copy_of(const Struct& given) noexcept {
  Struct copy{};
  std::memcpy(&copy, &given, given.struct_size);
  return copy;
}

/// Fills a checked struct of the caller's, of which an earlier header has the first members only.
template <class Struct>
void fill(Struct* given, Struct values) noexcept {
  values.struct_size = given->struct_size;
  std::memcpy(given, &values, values.struct_size);
}

}  // namespace msloc
