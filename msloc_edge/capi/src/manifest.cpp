#include "manifest.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <stdexcept>

#include "failure.h"

namespace msloc {
namespace {

using Json = nlohmann::json;

constexpr const char* kSchema = "msloc-edge/bundle/1";
constexpr int kMaxSide = 4096;  // bounds of what a manifest may make this library allocate
constexpr std::size_t kMaxClasses = 1000;
constexpr std::size_t kMaxStages = 16;
constexpr std::size_t kHashDigits = 64;
constexpr double kLargest = std::numeric_limits<float>::max();  // maps and their thresholds are floats

/// A value in a manifest that cannot be; `parse_manifest` says which manifest.
struct Unusable : std::runtime_error {
  using std::runtime_error::runtime_error;
};

void require(bool fits, const std::string& what) {
  if (!fits) throw Unusable(what);
}

bool is_control(char c) { return static_cast<unsigned char>(c) < ' '; }

/// A name: it will stand in sentences, log and audit, which are lines.
std::string name_of(const std::string& text) {
  require(std::none_of(text.begin(), text.end(), is_control), "expected names without control characters");
  return text;
}

std::string hash_of(const std::string& text) {
  const bool hex = std::all_of(text.begin(), text.end(),
                               [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
  require(hex && text.size() == kHashDigits, "expected hashes of 64 hex digits");
  return text;
}

std::vector<double> numbers(const Json& entry, std::size_t count, const char* what) {
  auto values = entry.get<std::vector<double>>();
  const bool finite = std::all_of(values.begin(), values.end(), [](double v) { return std::abs(v) <= kLargest; });
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

/// A number from low to high.
double number_in(const Json& entry, double low, double high, const char* what) {
  const auto value = entry.get<double>();
  require(value >= low && value <= high, std::string("expected ") + what);
  return value;
}

/// A member that may be absent or null; nullptr then.
const Json* find(const Json& entry, const char* key) {
  require(entry.is_object(), std::string("expected an object around ") + key);
  const auto found = entry.find(key);
  return found == entry.end() || found->is_null() ? nullptr : &*found;
}

std::optional<Abnormal> abnormal_of(const Json& manifest, std::size_t classes) {
  const Json* entry = find(manifest, "abnormal");
  if (entry == nullptr) return {};
  const char* const limits = "weights of abnormal of at least 0, and a bias";
  Abnormal abnormal{numbers(entry->at("weights"), classes, "weights of abnormal"),
                    number_in(entry->at("bias"), -kLargest, kLargest, limits)};
  for (const double weight : abnormal.weights) require(weight >= 0, std::string("expected ") + limits);
  return abnormal;
}

/// Weights of whole numbers of one byte, in hexadecimal digits, times a scale: [out, inputs]; biases [out].
GateLayer gate_layer_of(const Json& entry, std::size_t inputs) {
  const char* const limits = "an input gate with layers of finite numbers, two hexadecimal digits a weight";
  const auto scale = number_in(entry.at("scale"), -kLargest, kLargest, limits);
  const auto bias = numbers(entry.at("bias"), entry.at("bias").size(), "biases of the input gate");
  const auto digits = entry.at("weights").get<std::string>();
  require(!bias.empty() && digits.size() == 2 * bias.size() * inputs, std::string("expected ") + limits);
  GateLayer layer{{}, {bias.begin(), bias.end()}};
  for (std::size_t at = 0; at < digits.size(); at += 2) {
    std::uint8_t byte = 0;
    const char* const last = digits.data() + at + 2;
    require(std::from_chars(digits.data() + at, last, byte, 16).ptr == last, std::string("expected ") + limits);
    layer.weights.push_back(static_cast<float>(static_cast<std::int8_t>(byte)) * static_cast<float>(scale));
  }
  return layer;
}

std::optional<InputGate> input_gate_of(const Json& manifest) {
  const Json* entry = find(manifest, "input_gate");
  if (entry == nullptr) return {};
  const Json& reasons = entry->at("reasons");
  const auto known = [&](std::size_t i) { return reasons.at(i).get<std::string>() == kReasons[i].name; };
  bool all = reasons.size() == kSeen;
  for (std::size_t i = 0; all && i < kSeen; ++i) all = known(i);
  require(all, "expected an input gate with the reasons of this library");
  std::array<double, kSeen> thresholds{};
  for (std::size_t i = 0; i < kSeen; ++i)
    thresholds[i] = number_in(entry->at("thresholds").at(i), 0, 1, "thresholds of the input gate of 0 to 1");
  std::vector<GateLayer> convolutions;
  std::size_t channels = 1;
  std::size_t side = InputGate::kSide;
  for (const Json& layer : entry->at("convolutions")) {
    require(side > 1, "expected an input gate with fewer convolutions");
    convolutions.push_back(gate_layer_of(layer, channels * 9));
    channels = convolutions.back().bias.size();
    side /= 2;
  }
  GateLayer head = gate_layer_of(entry->at("head"), channels * side * side);
  require(head.bias.size() == 1 + kSeen, "expected an input gate with an output for a film and for each reason");
  return InputGate(std::move(convolutions), std::move(head), thresholds,
                   number_in(entry->at("clipped"), 0, 1, "a share of clipped pixels of 0 to 1"));
}

/// Those that a profile refuses a film for; its own list, or the usual ones.
std::vector<Reason> refuse_of(const Json& profile) {
  std::vector<std::string> names{"not_xray", "not_chest", "not_frontal", "rotated", "polarity_suspect"};
  if (const Json* own = find(profile, "refuse")) names = own->get<std::vector<std::string>>();
  std::vector<Reason> refuse;
  for (const std::string& name : names) {
    const auto* const found =
        std::find_if(kReasons.begin(), kReasons.end(), [&](const Reason& reason) { return name == reason.name; });
    require(found != kReasons.end(), "expected reasons to refuse that the input gate has, got " + printable(name));
    refuse.push_back(*found);
  }
  return refuse;
}

RegionRule regions_of(const Json& manifest) {
  RegionRule rule;
  const Json* entry = find(manifest, "regions");
  if (entry == nullptr) return rule;
  if (const Json* area = find(*entry, "min_area"))
    rule.min_area = number_in(*area, 1, kLargest, "a min_area of regions of at least 1 pixel");
  if (const Json* share = find(*entry, "min_share"))
    rule.min_share = number_in(*share, 0, 1, "a min_share of regions of 0 to 1");
  return rule;
}

/// The thresholds of an entry of "profiles".
Profile thresholds_of(const Json& entry, const std::string& name, std::size_t classes) {
  Profile profile{name_of(name), {}, numbers(entry.at("score"), classes, "score thresholds"),
                  numbers(entry.at("map"), classes, "map thresholds"), refuse_of(entry)};
  if (const Json* film = find(entry, "film")) profile.film = number_in(*film, 0, 1, "film thresholds of 0 to 1");
  return profile;
}

Profile profile_of(const Json& manifest, const std::string& wanted, std::size_t classes) {
  const Json& profiles = manifest.at("profiles");
  const auto standard = manifest.at("default_profile").get<std::string>();
  require(profiles.contains(standard), "its default profile is not among its profiles");
  const std::string name = wanted.empty() ? standard : wanted;
  std::string known;
  for (const auto& [key, entry] : profiles.items()) {
    const Profile profile = thresholds_of(entry, key, classes);
    require(!profile.film || find(manifest, "abnormal") != nullptr, "expected abnormal beside a film threshold");
    known += (known.empty() ? "" : ", ") + key;
  }
  if (!profiles.contains(name))
    throw Failure(MSLOC_PROFILE_UNKNOWN,
                  "expected a profile of " + known + ", got '" + name + "'; choose one of these");
  return thresholds_of(profiles.at(name), name, classes);
}

std::optional<Golden> golden_of(const Json& manifest, const Bundle& bundle) {
  const Json* entry = find(manifest, "golden");
  if (entry == nullptr) return {};
  Golden golden{entry->at("film").get<std::string>(), {}, {}};
  if (const Json* abnormal = find(*entry, "abnormal")) {
    golden.abnormal = number_in(*abnormal, 0, 1, "a golden abnormal of 0 to 1");
    require(bundle.abnormal.has_value(), "expected abnormal beside a golden one");
  }
  for (const std::string& label : bundle.classes) {
    const Json& finding = entry->at("findings").at(label);
    golden.findings.push_back({finding.at("logit").get<double>(), finding.at("peak").get<std::array<double, 3>>(),
                               finding.at("boxes").get<std::vector<std::array<double, 4>>>()});
  }
  return golden;
}

Bundle bundle_of(const Json& manifest, const std::string& profile) {
  Bundle bundle;
  bundle.classes = manifest.at("classes").get<std::vector<std::string>>();
  std::for_each(bundle.classes.begin(), bundle.classes.end(), name_of);
  const std::size_t classes = bundle.classes.size();
  const std::set<std::string> distinct(bundle.classes.begin(), bundle.classes.end());
  require(classes >= 1 && classes <= kMaxClasses && distinct.size() == classes,
          "expected distinct class names, from one to " + std::to_string(kMaxClasses));
  for (const Json& stage : manifest.at("stages")) bundle.stages.push_back(size_of(stage, "a stage"));
  require(!bundle.stages.empty() && bundle.stages.size() <= kMaxStages,
          "expected from one to " + std::to_string(kMaxStages) + " stages");
  bundle.name = name_of(manifest.at("name").get<std::string>());
  bundle.version = name_of(manifest.at("version").get<std::string>());
  bundle.input = size_of(manifest.at("input"), "an input");
  bundle.relevance = relevance_of(manifest.at("relevance"), classes, bundle.stages.size());
  bundle.temperature = manifest.at("temperature").get<double>();
  require(bundle.temperature > 0 && std::isfinite(bundle.temperature), "expected a temperature above 0");
  bundle.abnormal = abnormal_of(manifest, classes);
  bundle.input_gate = input_gate_of(manifest);
  bundle.regions = regions_of(manifest);
  bundle.profile = profile_of(manifest, profile, classes);
  bundle.golden = golden_of(manifest, bundle);
  return bundle;
}

std::map<std::string, std::string> files_of(const Json& manifest) {
  auto files = manifest.at("files").get<std::map<std::string, std::string>>();
  require(files.count(kModelFile) == 1, std::string("expected ") + kModelFile + " among its files");
  for (const auto& [name, hash] : files) {
    require(!name_of(name).empty() && name != "." && name != ".." && std::filesystem::path(name).filename() == name,
            "expected plain file names, got '" + printable(name) + "'");
    hash_of(hash);
  }
  return files;
}

}  // namespace

Manifest parse_manifest(const std::string& raw, const std::string& profile, const std::string& origin) {
  try {
    const Json manifest = Json::parse(raw);
    const auto schema = manifest.at("schema").get<std::string>();
    if (schema != kSchema)
      throw Failure(MSLOC_BUNDLE_SCHEMA, origin + ": expected schema " + kSchema + ", got '" + printable(schema) +
                                             "'; update the library, or export the bundle again");
    return {bundle_of(manifest, profile), files_of(manifest),
            hash_of(manifest.at("thresholds_for").get<std::string>())};
  } catch (const Json::exception& error) {
    throw Failure(MSLOC_BUNDLE_DAMAGED, origin + ": expected a bundle's manifest, got " + printable(error.what()) +
                                            "; export it again");
  } catch (const Unusable& error) {
    throw Failure(MSLOC_BUNDLE_DAMAGED, origin + ": unusable: " + error.what() + "; export it again");
  }
}

}  // namespace msloc
