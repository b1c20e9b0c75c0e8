// manifest.json: the numbers and names of a bundle, as bytes from anywhere, checked before anything is made from it.
#pragma once

#include <map>
#include <string>

#include "bundle.h"

namespace msloc {

inline constexpr const char* kModelFile = "model.onnx";

struct Manifest {
  Bundle bundle;                             // all but its model and the hash of its manifest
  std::map<std::string, std::string> files;  // plain name -> sha256; the model is one of them
  std::string thresholds_for;                // sha256 of the model that they were fitted for
};

/// Parses and checks a manifest. An empty `profile` takes the default one; `origin` is what sentences call the
/// manifest. Throws Failure: MSLOC_BUNDLE_DAMAGED, MSLOC_BUNDLE_SCHEMA, MSLOC_PROFILE_UNKNOWN.
Manifest parse_manifest(const std::string& raw, const std::string& profile, const std::string& origin);

}  // namespace msloc
