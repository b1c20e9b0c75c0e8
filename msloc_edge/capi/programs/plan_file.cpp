#include "plan_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <system_error>

#include "sha256.h"

namespace {

using Json = nlohmann::ordered_json;
namespace fs = std::filesystem;

constexpr std::size_t kNameDigits = 16;  // of the bundle's sha256

int checked(int result, const std::string& file) {
  if (result < 0) throw std::system_error(errno, std::generic_category(), file);
  return result;
}

std::string read(const fs::path& file) {
  std::ifstream stream(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), {}};
}

/// Writes a file beside its name, flushed, and renames it.
void replace(const fs::path& file, const std::string& data) {
  const std::string beside = (file.parent_path() / (".msloc-" + file.filename().string() + ".tmp")).string();
  const int handle = checked(open(beside.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644), beside);
  std::size_t written = 0;
  ssize_t step = 0;
  while (written < data.size() && (step = write(handle, data.data() + written, data.size() - written)) > 0)
    written += static_cast<std::size_t>(step);
  const int flushed = written == data.size() ? fsync(handle) : -1;
  const int error = errno;
  close(handle);
  errno = error;
  checked(flushed, beside);
  fs::rename(beside, file);
}

std::string sidecar(const PlanKey& key, const std::string& data, double seconds) {
  const Json batch = {{"least", key.least}, {"best", key.best}, {"most", key.most}};
  const Json content = {{"schema", "msloc-edge/engine/1"},
                        {"key",
                         {{"bundle", key.bundle},
                          {"flavour", "tensorrt"},
                          {"version", key.version},
                          {"sm", key.sm},
                          {"precision", key.precision},
                          {"graph", key.graph},
                          {"batch", batch}}},
                        {"sha256", msloc::sha256(data)},
                        {"bytes", data.size()},
                        {"build_seconds", std::round(seconds * 1000) / 1000},
                        {"facts", Json::object()}};
  return content.dump(1) + "\n";
}

}  // namespace

std::string PlanKey::file() const {
  return bundle.substr(0, kNameDigits) + "-tensorrt-" + version + "-sm" + std::to_string(sm) + "-" + precision + "-" +
         graph + "-" + std::to_string(least) + "." + std::to_string(best) + "." + std::to_string(most) + ".plan";
}

PlanLock::PlanLock(const std::string& folder, const PlanKey& key, void (*waiting)(const std::string& file)) {
  const std::string file = folder + "/" + key.file() + ".lock";
  fs::create_directories(folder);
  handle_ = checked(open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644), file);
  if (flock(handle_, LOCK_EX | LOCK_NB) == 0) return;
  waiting(key.file());
  while (flock(handle_, LOCK_EX) != 0)
    if (errno != EINTR) {
      close(handle_);
      checked(-1, file);
    }
}

PlanLock::~PlanLock() { close(handle_); }

bool has_plan(const std::string& folder, const PlanKey& key) {
  const fs::path file = fs::path(folder) / key.file();
  const Json content = Json::parse(read(file.string() + ".json"), nullptr, false);
  if (!content.is_object()) return false;
  const std::string data = read(file);
  return content.value("bytes", std::size_t{0}) == data.size() && content.value("sha256", "") == msloc::sha256(data);
}

void write_plan(const std::string& folder, const PlanKey& key, const std::string& data, double seconds) {
  const fs::path file = fs::path(folder) / key.file();
  replace(file.string() + ".json", sidecar(key, data, seconds));
  replace(file, data);
}
