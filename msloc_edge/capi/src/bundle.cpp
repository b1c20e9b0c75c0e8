#include "bundle.h"

#include <filesystem>
#include <future>
#include <optional>
#include <utility>

#include "failure.h"
#include "files.h"
#include "graph.h"
#include "manifest.h"
#include "sha256.h"

namespace msloc {
namespace {

namespace fs = std::filesystem;

std::string read(const fs::path& file) {
  std::optional<std::string> data = read_file(file);
  if (!data)
    throw Failure(MSLOC_BUNDLE_FILE_MISSING,
                  file.string() + ": expected a readable file, got none; copy the whole bundle folder again");
  return *std::move(data);
}

void check_hash(const fs::path& file, const std::string& found, const std::string& expected) {
  if (found != expected)
    throw Failure(MSLOC_BUNDLE_HASH, file.string() + ": expected sha256 " + expected.substr(0, 12) + "..., got " +
                                         found.substr(0, 12) + "...; the file is not the one that was exported: copy " +
                                         "the bundle again");
}

/// Refuses a file that the manifest does not list: no hash covers it. Hidden ones are passed over.
void check_listed(const fs::path& folder, const Manifest& manifest) {
  for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().u8string();
    const bool own = name == "manifest.json" || name == "manifest.sig" || name.front() == '.';
    if (!own && manifest.files.count(name) == 0)
      throw Failure(MSLOC_BUNDLE_HASH, folder.string() + ": expected only the files that manifest.json lists, got " +
                                           printable(name) + "; remove it");
  }
}

/// Checks every file that the manifest names, the others beside the model. Returns the model's bytes.
std::string verified_model(const fs::path& folder, const Manifest& manifest) {
  auto others = std::async(std::launch::async, [&] {
    for (const auto& [name, expected] : manifest.files)
      if (name != kModelFile) check_hash(folder / name, sha256(read(folder / name)), expected);
  });
  std::string model = read(folder / kModelFile);
  const std::string& expected = manifest.files.at(kModelFile);
  check_hash(folder / kModelFile, sha256(model), expected);
  others.get();
  if (const char* what = refused_in_graph(model))
    throw Failure(MSLOC_BUNDLE_DAMAGED, (folder / kModelFile).string() +
                                            ": expected one flat graph of standard operators with its weights "
                                            "inside, got " +
                                            what + "; export it again");
  if (manifest.thresholds_for != expected)
    throw Failure(MSLOC_BUNDLE_HASH, folder.string() + ": expected thresholds fitted for its model, got those of " +
                                         "another one; export it again");
  return model;
}

}  // namespace

Bundle Bundle::open(const std::string& folder, const std::string& profile) {
  const fs::path path = fs::u8path(folder);
  if (!fs::is_directory(path))
    throw Failure(MSLOC_BUNDLE_MISSING, folder + ": expected a bundle's folder, got none; check the path");
  const fs::path file = path / "manifest.json";
  const std::string raw = read(file);
  Manifest manifest = parse_manifest(raw, profile, file.string());
  Bundle bundle = std::move(manifest.bundle);
  bundle.sha256 = msloc::sha256(raw);
  check_listed(path, manifest);
  bundle.model = verified_model(path, manifest);
  return bundle;
}

}  // namespace msloc
