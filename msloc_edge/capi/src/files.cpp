#include "files.h"

#include <cstdint>
#include <fstream>
#include <system_error>

namespace msloc {

std::optional<std::string> read_file(const std::filesystem::path& file) {
  std::error_code unreadable;
  if (!std::filesystem::is_regular_file(file, unreadable)) return {};  // the stream would open a folder, and then throw
  const std::uintmax_t size = std::filesystem::file_size(file, unreadable);
  if (unreadable) return {};
  std::string data(size, '\0');
  std::ifstream stream(file, std::ios::binary);
  if (!stream.read(data.data(), static_cast<std::streamsize>(size))) return {};
  return data;
}

}  // namespace msloc
