// Opening and closing: options checked, bundle and engine brought together.
#include <algorithm>
#include <cstdio>
#include <memory>
#include <string>
#include <thread>

#include "handle.h"

namespace {

using namespace msloc;

constexpr std::uint64_t kDefaultMaxPixels = 120'000'000;  // as msloc_edge.imaging.raster.MAX_PIXELS
constexpr std::uint64_t kMaxPixels = 1 << 30;
constexpr std::uint32_t kDefaultBoxes = 16;
constexpr std::uint32_t kMaxBoxes = 1024;
constexpr std::uint32_t kMaxThreads = 256;

std::string text_or(const char* text, const char* otherwise) { return text == nullptr ? otherwise : text; }

Limits limits_of(const msloc_options& options) {
  require(options.threads <= kMaxThreads, "expected at most 256 threads, got more; 0 takes one for each core");
  require(options.max_boxes == 0 || (options.max_boxes >= kDefaultBoxes && options.max_boxes <= kMaxBoxes),
          "expected max_boxes of 0 or 16 to 1024, got another; choose one of these");
  require(options.max_pixels <= kMaxPixels, "expected max_pixels of at most 2**30, got more; choose less");
  const std::uint32_t cores = std::clamp(std::thread::hardware_concurrency(), 1U, kMaxThreads);
  return {static_cast<int>(options.threads == 0 ? cores : options.threads),
          static_cast<int>(options.max_boxes == 0 ? kDefaultBoxes : options.max_boxes),
          options.max_pixels == 0 ? kDefaultMaxPixels : options.max_pixels};
}

std::unique_ptr<msloc_localizer> open(const msloc_options& options) {
  require(options.bundle != nullptr, "expected a bundle's folder, got NULL; set options.bundle");
  const Limits limits = limits_of(options);
  Bundle bundle = Bundle::open(options.bundle, text_or(options.profile, ""));
  const EngineOptions engine_options{text_or(options.device, ""), text_or(options.cache_folder, ""),
                                     static_cast<int>(options.threads)};
  auto engine = make_engine(text_or(options.engine, "openvino"), bundle, engine_options);
  bundle.model = {};  // the engine has it now
  auto opened = std::make_unique<msloc_localizer>(options, std::move(bundle), std::move(engine), limits);
  const Bundle& model = opened->localizer.bundle();
  opened->log(MSLOC_LOG_INFO, ("opened " + model.name + " " + model.version + " in " +
                               opened->localizer.engine().description() + ", profile " + model.profile.name)
                                  .c_str());
  const std::string because = opened->localizer.engine().host_because();
  if (!because.empty())
    opened->log(MSLOC_LOG_INFO, ("the host windows films and locates findings, not the device: " + because).c_str());
  return opened;
}

}  // namespace

extern "C" {

msloc_status msloc_open(const msloc_options* options, msloc_localizer** localizer) {
  if (localizer == nullptr) return MSLOC_ARGUMENT;
  *localizer = nullptr;
  bool known = false;  // whether options is a struct that may be read
  return attempt(
      [&] {
        check_struct(options, "msloc_options");
        known = true;
        *localizer = open(*options).release();
      },
      [&](msloc_status, const char* sentence) {
        if (!known) return;
        if (options->error != nullptr && options->error_size > 0)
          std::snprintf(options->error, options->error_size, "%s", sentence);
        if (options->log != nullptr) options->log(options->log_user, MSLOC_LOG_ERROR, sentence);
      });
}

void msloc_close(msloc_localizer* localizer) { const std::unique_ptr<msloc_localizer> last_owner(localizer); }

}  // extern "C"
