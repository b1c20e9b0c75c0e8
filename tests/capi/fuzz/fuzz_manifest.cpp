// Any bytes as manifest.json: refused by a sentence of one line, or a bundle whose parts fit together.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "failure.h"
#include "manifest.h"

namespace {

void require(bool holds) {
  if (!holds) std::abort();
}

bool one_line(const std::string& text) {
  return std::none_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < ' '; });
}

bool fits(msloc::Size size) {
  return std::min(size.width, size.height) >= 1 && std::max(size.width, size.height) <= 4096;
}

void check(const msloc::Manifest& manifest) {
  const msloc::Bundle& bundle = manifest.bundle;
  const std::size_t classes = bundle.classes.size();
  require(classes >= 1 && classes <= 1000 && std::all_of(bundle.classes.begin(), bundle.classes.end(), one_line));
  require(one_line(bundle.name) && one_line(bundle.version) && one_line(bundle.profile.name));
  require(fits(bundle.input) && !bundle.stages.empty() && bundle.stages.size() <= 16);
  require(std::all_of(bundle.stages.begin(), bundle.stages.end(), fits));
  require(bundle.relevance.size() == classes * bundle.stages.size());
  require(std::all_of(bundle.relevance.begin(), bundle.relevance.end(), [](float w) { return w >= 0 && w < 2; }));
  require(bundle.profile.score.size() == classes && bundle.profile.map.size() == classes && bundle.temperature > 0);
  const auto of_a_probability = [](double value) { return value >= 0 && value <= 1; };
  require(!bundle.golden || bundle.golden->findings.size() == classes);
  require(!bundle.golden || of_a_probability(bundle.golden->abnormal.value_or(0)));
  require(of_a_probability(bundle.profile.film.value_or(0)) && (bundle.abnormal || !bundle.profile.film));
  require(bundle.regions.min_area >= 1 && of_a_probability(bundle.regions.min_share));
  const std::vector<float> logits(classes, 1e30F);
  require(!bundle.abnormal || of_a_probability(bundle.abnormal->probability(logits.data(), bundle.temperature)));
  require(manifest.files.count(msloc::kModelFile) == 1 && manifest.thresholds_for.size() == 64);
  for (const auto& [name, hash] : manifest.files) require(name.find('/') == std::string::npos && hash.size() == 64);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    check(msloc::parse_manifest(std::string(reinterpret_cast<const char*>(data), size), "", "manifest.json"));
  } catch (const msloc::Failure& failure) {
    require(one_line(failure.what()));
    require(failure.status() == MSLOC_BUNDLE_DAMAGED || failure.status() == MSLOC_BUNDLE_SCHEMA);
  }
  return 0;
}
