#include "plan.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>
#include <tuple>
#include <utility>
#include <vector>

#include "failure.h"
#include "files.h"
#include "sha256.h"

namespace msloc {
namespace {

using Json = nlohmann::json;
namespace fs = std::filesystem;

constexpr const char* kSchema = "msloc-edge/engine/1";
constexpr std::size_t kVersionAt = 24;  // major, minor and patch of the TensorRT that wrote a plan, a byte each
constexpr int kAmpere = 80;  // the oldest device of a hardware-compatible plan
constexpr std::size_t kNameDigits = 16;  // of the bundle's sha256, at the beginning of a plan's name in the cache

/// The reason why a plan is not taken.
struct Refused : std::runtime_error {
  using std::runtime_error::runtime_error;
};

void require(bool fits, const std::string& otherwise) {
  if (!fits) throw Refused(otherwise);
}

/// The part of a sidecar that is used.
struct Sidecar {
  std::string bundle, flavour, version, precision, graph, sha256;
  int sm;
  int least, best, most;  // batch
  std::size_t bytes;
  bool version_compatible, hardware_compatible;
  std::string plugin_library;

  /// A key of order: smaller is better for single films. What is compatible with other machines is slower.
  [[nodiscard]] auto rank() const {
    return std::make_tuple(version_compatible || hardware_compatible, graph != "network", best, most);
  }
};

Sidecar sidecar_of(const fs::path& plan) {
  const std::optional<std::string> text = read_file(plan.string() + ".json");
  try {
    const Json content = Json::parse(text.value_or(""));
    require(content.at("schema").get<std::string>() == kSchema, "");
    const Json& key = content.at("key");
    const Json& batch = key.at("batch");
    const Json& facts = content.at("facts");
    const auto word = [&](const char* name) { return key.at(name).get<std::string>(); };
    return {word("bundle"),
            word("flavour"),
            word("version"),
            word("precision"),
            word("graph"),
            content.at("sha256").get<std::string>(),
            key.at("sm").get<int>(),
            batch.at("least").get<int>(),
            batch.at("best").get<int>(),
            batch.at("most").get<int>(),
            content.at("bytes").get<std::size_t>(),
            facts.value("version_compatible", false),
            facts.value("hardware_compatible", false),
            facts.value("plugin_library", "")};
  } catch (const std::exception&) {
    throw Refused(text ? std::string("with a sidecar that is not of ") + kSchema : "without its sidecar FILE.json");
  }
}

/// 10.3.0 of 10.3.0.26: not every TensorRT tells its build number.
std::string release(const std::string& version) {
  std::size_t end = 0;
  for (int part = 0; part < 3 && end != std::string::npos; ++part) end = version.find('.', end + (part > 0 ? 1 : 0));
  return version.substr(0, end);
}

/// Major and minor of a version such as 10.3.0; 0 where no number is.
std::pair<int, int> major_and_minor(const std::string& version) {
  std::pair<int, int> found{0, 0};
  char dot = 0;
  std::istringstream(version) >> found.first >> dot >> found.second;
  return found;
}

/// Whether a version-compatible plan of a version runs in another: a later one, and 11 after 10 as NVIDIA supports it.
bool later(const std::string& built, const std::string& running) {
  const std::pair<int, int> before = major_and_minor(built);
  const std::pair<int, int> now = major_and_minor(running);
  const bool across = before.first == 10 && now.first == 11;
  return before <= now && (before.first == now.first || across);
}

void check(const Sidecar& sidecar, const PlanFor& wanted) {
  require(sidecar.bundle == wanted.bundle.sha256, "of another bundle");
  require(sidecar.flavour == "tensorrt", "for " + sidecar.flavour);
  require(release(sidecar.version) == wanted.version ||
              (sidecar.version_compatible && later(sidecar.version, wanted.version)),
          "for TensorRT " + sidecar.version);
  require(sidecar.sm == wanted.sm || (sidecar.hardware_compatible && std::min(sidecar.sm, wanted.sm) >= kAmpere),
          "for sm_" + std::to_string(sidecar.sm));
  require(wanted.precision.empty() || sidecar.precision == wanted.precision, "of " + sidecar.precision);
  require(sidecar.least == 1, "that takes no single films");
}

std::string checked_data(const fs::path& file, const Sidecar& sidecar) {
  std::optional<std::string> data = read_file(file);
  require(data.has_value(), "that cannot be read");
  require(data->size() == sidecar.bytes && data->size() >= kVersionAt + 3, "of another length than its sidecar says");
  const std::string tag = data->substr(0, 4);
  require(tag == "ftrt" || tag == "vtrt", "that is no plan of TensorRT");
  std::string version;
  for (std::size_t part = 0; part < 3; ++part)
    version += (part > 0 ? "." : "") + std::to_string(static_cast<unsigned char>((*data)[kVersionAt + part]));
  require(version == release(sidecar.version), "that TensorRT " + version + " wrote, against its sidecar");
  require(sha256(*data) == sidecar.sha256, "of another sha256 than its sidecar says");
  return std::move(*data);
}

Plan checked(const fs::path& file, const Sidecar& sidecar, const PlanFor& wanted) {
  check(sidecar, wanted);
  return {file.string(), checked_data(file, sidecar), sidecar.precision, sidecar.version_compatible,
          sidecar.plugin_library};
}

/// The plans that are named after the bundle, by name.
std::vector<fs::path> plans_in(const fs::path& folder, const Bundle& bundle) {
  const std::string begin = bundle.sha256.substr(0, kNameDigits) + "-tensorrt-";
  std::vector<fs::path> plans;
  std::error_code missing;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder, missing))
    if (entry.path().extension() == ".plan" && entry.path().filename().string().rfind(begin, 0) == 0)
      plans.push_back(entry.path());
  std::sort(plans.begin(), plans.end());
  return plans;
}

Failure refusal(const std::string& where, const std::string& got, const PlanFor& wanted) {
  const std::string precision = wanted.precision.empty() ? "a plan" : "an " + wanted.precision + " plan";
  return {MSLOC_BACKEND_FAILED, where + ": expected " + precision + " of " + wanted.bundle.name + " for TensorRT " +
                                    wanted.version + " on sm_" + std::to_string(wanted.sm) + ", got " + got +
                                    "; make it here: " + export_command(wanted)};
}

}  // namespace

std::string export_command(const PlanFor& wanted) {
  return "msloc-edge export target " + wanted.bundle.name + " OUT --target tensorrt" +
         (wanted.precision.empty() ? "" : " --precision " + wanted.precision);
}

Plan find_plan(const std::string& folder, const PlanFor& wanted) {
  std::vector<std::pair<Sidecar, fs::path>> fitting;
  std::string got = "none";
  const auto attempt = [&](const auto& work) {
    try {
      work();
    } catch (const Refused& reason) {
      got = std::string("one ") + reason.what();
    }
  };
  for (const fs::path& file : plans_in(fs::u8path(folder), wanted.bundle))
    attempt([&] {
      Sidecar sidecar = sidecar_of(file);
      check(sidecar, wanted);
      fitting.emplace_back(std::move(sidecar), file);
    });
  std::stable_sort(fitting.begin(), fitting.end(),
                   [](const auto& a, const auto& b) { return a.first.rank() < b.first.rank(); });
  std::optional<Plan> plan;
  for (const auto& [sidecar, file] : fitting) {
    attempt([&, &sidecar = sidecar, &file = file] { plan = checked(file, sidecar, wanted); });
    if (plan) return std::move(*plan);
  }
  throw refusal(folder, got, wanted);
}

Plan read_plan(const std::string& file, const PlanFor& wanted) {
  const fs::path path = fs::u8path(file);
  try {
    return checked(path, sidecar_of(path), wanted);
  } catch (const Refused& reason) {
    throw refusal(file, std::string("one ") + reason.what(), wanted);
  }
}

}  // namespace msloc
