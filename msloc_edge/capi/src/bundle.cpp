#include "bundle.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <future>
#include <iterator>
#include <nlohmann/json.hpp>
#include <set>

#include "failure.h"
#include "sha256.h"

namespace msloc {
namespace {

using Json = nlohmann::json;
namespace fs = std::filesystem;

constexpr const char* kSchema = "msloc-edge/bundle/1";
constexpr const char* kModel = "model.onnx";
constexpr int kMaxSide = 4096;  // bounds of what a manifest may make this library allocate
constexpr std::size_t kMaxClasses = 1000;
constexpr std::size_t kMaxStages = 16;

/// A value in a manifest that cannot be; `open` says which manifest.
struct Unusable : std::runtime_error {
  using std::runtime_error::runtime_error;
};

void require(bool fits, const std::string& what) {
  if (!fits) throw Unusable(what);
}

/// A parser's words about bytes that may be anything, as plain text.
std::string printable(std::string text) {
  std::replace_if(
      text.begin(), text.end(), [](char c) { return c < ' ' || c > '~'; }, '?');
  return text;
}

std::string read(const fs::path& file) {
  std::ifstream stream(file, std::ios::binary);
  std::string data{std::istreambuf_iterator<char>(stream), {}};
  if (!stream.is_open() || stream.bad() || !fs::is_regular_file(file))
    throw Failure(MSLOC_BUNDLE_FILE_MISSING,
                  file.string() + ": expected a readable file, got none; copy the whole bundle folder again");
  return data;
}

std::vector<double> numbers(const Json& entry, std::size_t count, const char* what) {
  auto values = entry.get<std::vector<double>>();
  const bool finite = std::all_of(values.begin(), values.end(), [](double v) { return std::isfinite(v); });
  require(values.size() == count && finite, "expected " + std::to_string(count) + " finite numbers as " + what);
  return values;
}

Size size_of(const Json& entry, const char* what) {
  const auto width = entry.at("width").get<double>();
  const auto height = entry.at("height").get<double>();
  require(std::min(width, height) >= 1 && std::max(width, height) <= kMaxSide,
          std::string("expected ") + what + " of 1 to " + std::to_string(kMaxSide) + " pixels a side");
  return {static_cast<int>(width), static_cast<int>(height)};
}

std::vector<float> relevance_of(const Json& rows, std::size_t classes, std::size_t stages) {
  require(rows.size() == classes, "expected a row of relevance weights for each class");
  std::vector<float> relevance;
  for (const Json& row : rows) {
    double sum = 0;
    for (const double weight : numbers(row, stages, "relevance weights")) {
      require(weight >= 0, "expected relevance weights of at least 0");
      relevance.push_back(static_cast<float>(weight));
      sum += weight;
    }
    require(std::abs(sum - 1) <= 1e-4, "expected relevance weights whose rows sum to one");
  }
  return relevance;
}

Profile profile_of(const Json& manifest, const std::string& wanted, std::size_t classes) {
  const Json& profiles = manifest.at("profiles");
  const auto standard = manifest.at("default_profile").get<std::string>();
  require(profiles.contains(standard), "its default profile is not among its profiles");
  const std::string name = wanted.empty() ? standard : wanted;
  std::string known;
  for (const auto& [key, entry] : profiles.items()) {
    numbers(entry.at("score"), classes, "score thresholds");
    numbers(entry.at("map"), classes, "map thresholds");
    known += (known.empty() ? "" : ", ") + key;
  }
  if (!profiles.contains(name))
    throw Failure(MSLOC_PROFILE_UNKNOWN,
                  "expected a profile of " + known + ", got '" + name + "'; choose one of these");
  const Json& entry = profiles.at(name);
  return {name, entry.at("score").get<std::vector<double>>(), entry.at("map").get<std::vector<double>>()};
}

std::vector<Golden> golden_of(const Json& findings, const std::vector<std::string>& classes) {
  std::vector<Golden> golden;
  for (const std::string& label : classes) {
    const Json& entry = findings.at(label);
    golden.push_back({entry.at("logit").get<double>(), entry.at("peak").get<std::array<double, 3>>(),
                      entry.at("boxes").get<std::vector<std::array<double, 4>>>()});
  }
  return golden;
}

void check_hash(const fs::path& file, const std::string& found, const std::string& expected) {
  if (found != expected)
    throw Failure(MSLOC_BUNDLE_HASH, file.string() + ": expected sha256 " + expected.substr(0, 12) + "..., got " +
                                         found.substr(0, 12) + "...; the file is not the one that was exported: copy " +
                                         "the bundle again");
}

/// Checks every file that the manifest names, the others beside the model. Returns the model's bytes.
std::string verified_model(const fs::path& folder, const Json& manifest) {
  const auto files = manifest.at("files").get<std::map<std::string, std::string>>();
  require(files.count(kModel) == 1, std::string("expected ") + kModel + " among its files");
  for (const auto& entry : files)
    require(!entry.first.empty() && entry.first != ".." && fs::path(entry.first).filename() == entry.first,
            "expected plain file names, got '" + entry.first + "'");
  auto others = std::async(std::launch::async, [&] {
    for (const auto& [name, expected] : files)
      if (name != kModel) check_hash(folder / name, sha256(read(folder / name)), expected);
  });
  std::string model = read(folder / kModel);
  check_hash(folder / kModel, sha256(model), files.at(kModel));
  others.get();
  if (manifest.at("thresholds_for").get<std::string>() != files.at(kModel))
    throw Failure(MSLOC_BUNDLE_HASH, folder.string() + ": expected thresholds fitted for its model, got those of " +
                                         "another one; export it again");
  return model;
}

Bundle parse(const Json& manifest, const std::string& profile) {
  Bundle bundle;
  bundle.classes = manifest.at("classes").get<std::vector<std::string>>();
  const std::size_t classes = bundle.classes.size();
  const std::set<std::string> distinct(bundle.classes.begin(), bundle.classes.end());
  require(classes >= 1 && classes <= kMaxClasses && distinct.size() == classes,
          "expected distinct class names, from one to " + std::to_string(kMaxClasses));
  for (const Json& stage : manifest.at("stages")) bundle.stages.push_back(size_of(stage, "a stage"));
  require(!bundle.stages.empty() && bundle.stages.size() <= kMaxStages,
          "expected from one to " + std::to_string(kMaxStages) + " stages");
  bundle.name = manifest.at("name").get<std::string>();
  bundle.version = manifest.at("version").get<std::string>();
  bundle.input = size_of(manifest.at("input"), "an input");
  bundle.relevance = relevance_of(manifest.at("relevance"), classes, bundle.stages.size());
  bundle.temperature = manifest.at("temperature").get<double>();
  require(bundle.temperature > 0 && std::isfinite(bundle.temperature), "expected a temperature above 0");
  bundle.profile = profile_of(manifest, profile, classes);
  if (manifest.contains("golden") && manifest.at("golden").is_object()) {
    bundle.golden_film = manifest.at("golden").at("film").get<std::string>();
    bundle.golden = golden_of(manifest.at("golden").at("findings"), bundle.classes);
  }
  return bundle;
}

}  // namespace

Bundle Bundle::open(const std::string& folder, const std::string& profile) {
  const fs::path path = fs::u8path(folder);
  if (!fs::is_directory(path))
    throw Failure(MSLOC_BUNDLE_MISSING, folder + ": expected a bundle's folder, got none; check the path");
  const fs::path file = path / "manifest.json";
  const std::string raw = read(file);
  try {
    const Json manifest = Json::parse(raw);
    const auto schema = manifest.at("schema").get<std::string>();
    if (schema != kSchema)
      throw Failure(MSLOC_BUNDLE_SCHEMA, folder + ": expected schema " + kSchema + ", got '" + schema +
                                             "'; update the library, or export the bundle again");
    Bundle bundle = parse(manifest, profile);
    bundle.sha256 = msloc::sha256(raw);
    bundle.model = verified_model(path, manifest);
    return bundle;
  } catch (const Json::exception& error) {
    throw Failure(MSLOC_BUNDLE_DAMAGED, file.string() + ": expected a bundle's manifest, got " +
                                            printable(error.what()) + "; export it again");
  } catch (const Unusable& error) {
    throw Failure(MSLOC_BUNDLE_DAMAGED, file.string() + ": unusable: " + error.what() + "; export it again");
  }
}

}  // namespace msloc
