#include "installed.h"

#include <filesystem>

std::string installed_bundle() {
  std::error_code unknown;
  const std::filesystem::path program = std::filesystem::read_symlink("/proc/self/exe", unknown);
  return (program.parent_path() / MSLOC_MODELS_FROM_BIN).lexically_normal().string();
}
