// Whole files, which may be missing, unreadable or something else.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

namespace msloc {

/// The bytes of a regular file; none where it cannot be read.
std::optional<std::string> read_file(const std::filesystem::path& file);

}  // namespace msloc
