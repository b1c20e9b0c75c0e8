#include "compiled.h"

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>

#include "files.h"
#include "sha256.h"

namespace msloc {
namespace {

using Json = nlohmann::json;
namespace fs = std::filesystem;

constexpr const char* kKernelSchema = "msloc-edge/kernels/3";
constexpr const char* kIndex = "kernels.json";
constexpr const char* kDtype = "fp32";
constexpr std::size_t kMaxDigits = 9;  // of a number in a grid rule

/// The bytes of a file. Throws KernelUnusable.
std::string read(const fs::path& file, const std::string& advice) {
  std::optional<std::string> data = read_file(file);
  if (!data) throw KernelUnusable(file.string() + ": expected a readable file, got none; " + advice);
  return *std::move(data);
}

/// The name of an argument that is an address or a whole number of 32 bits, as all of these kernels have.
std::string argument_of(const Json& argument) {
  const auto type = argument.at("type").get<std::string>();
  if (type.rfind('*', 0) != 0 && type != "i32") throw std::invalid_argument("an argument of type " + type);
  return argument.at("name").get<std::string>();
}

std::optional<TileRule> tile_of(const Json& rule) {
  if (rule.is_null()) return {};
  TileRule tile{rule.at("heights").get<std::vector<int>>(), rule.at("min_programs").get<int>()};
  const auto& heights = tile.heights;
  if (heights.empty() || *std::min_element(heights.begin(), heights.end()) < 1)
    throw std::invalid_argument("a tile of no rows");
  return tile;
}

Compiled kernel_of(const Json& entry) {
  Compiled kernel{entry.at("operation").get<std::string>() + "." + entry.at("variant").get<std::string>(),
                  entry.at("entry").get<std::string>(),
                  {},
                  entry.at("grid").get<std::array<std::string, 3>>(),
                  entry.at("block").get<unsigned>(),
                  entry.at("shared").get<unsigned>(),
                  tile_of(entry.at("tile")),
                  {}};
  for (const Json& argument : entry.at("arguments")) kernel.arguments.push_back(argument_of(argument));
  return kernel;
}

/// Evaluates a grid rule from left to right.
class GridRule {
 public:
  GridRule(std::string_view text, Values values) : text_(text), rest_(text), values_(values) {}

  std::uint64_t evaluate() {
    const std::uint64_t value = sum();
    if (!rest_.empty()) refuse();
    return value;
  }

 private:
  std::uint64_t sum() {
    std::uint64_t value = product();
    while (true) {
      if (take("+"))
        value += product();
      else if (take("-"))
        value -= product();
      else
        return value;
    }
  }

  std::uint64_t product() {
    std::uint64_t value = factor();
    while (true) {
      if (take("//"))
        value /= divisor(factor());
      else if (take("*"))
        value *= factor();
      else
        return value;
    }
  }

  std::uint64_t factor() {
    if (take("(")) {
      const std::uint64_t value = sum();
      expect(")");
      return value;
    }
    const std::string found = word();
    if (found == "cdiv") {
      expect("(");
      const std::uint64_t dividend = sum();
      expect(",");
      const std::uint64_t by = divisor(sum());
      expect(")");
      return (dividend + by - 1) / by;
    }
    if (!std::all_of(found.begin(), found.end(), is_digit)) return value_of(found, values_);
    if (found.empty() || found.size() > kMaxDigits) refuse();
    return std::stoul(found);
  }

  /// A name or a number.
  std::string word() {
    skip_spaces();
    const auto is_part = [](char c) { return c == '_' || std::isalnum(static_cast<unsigned char>(c)) != 0; };
    const auto* const end = std::find_if_not(rest_.begin(), rest_.end(), is_part);
    std::string found(rest_.begin(), end);
    rest_.remove_prefix(found.size());
    return found;
  }

  bool take(std::string_view sign) {
    skip_spaces();
    if (rest_.substr(0, sign.size()) != sign) return false;
    rest_.remove_prefix(sign.size());
    return true;
  }

  void expect(std::string_view sign) {
    if (!take(sign)) refuse();
  }

  void skip_spaces() { rest_.remove_prefix(std::min(rest_.find_first_not_of(' '), rest_.size())); }

  [[nodiscard]] std::uint64_t divisor(std::uint64_t value) const {
    if (value == 0) refuse();
    return value;
  }

  static bool is_digit(char c) { return c >= '0' && c <= '9'; }

  [[noreturn]] void refuse() const {
    throw KernelUnusable("a grid rule '" + std::string(text_) +
                         "': expected names, whole numbers, + - * // and cdiv; compile again");
  }

  std::string_view text_;
  std::string_view rest_;
  Values values_;
};

}  // namespace

std::uint64_t value_of(const std::string& name, Values values) {
  const auto* const found =
      std::find_if(values.begin(), values.end(), [&](const Value& value) { return name == value.name; });
  if (found == values.end())
    throw KernelUnusable("expected a kernel of this msloc-edge, got one with " + name + "; compile again");
  return found->number;
}

int TileRule::tile_h(int maps, Size map, int columns) const noexcept {
  const auto divided_up = [](std::int64_t dividend, std::int64_t divisor) {
    return (dividend + divisor - 1) / divisor;
  };
  const std::int64_t tiles = maps * divided_up(map.width, columns);
  const auto enough = std::find_if(heights.begin(), heights.end(),
                                   [&](int rows) { return tiles * divided_up(map.height, rows) >= min_programs; });
  return enough == heights.end() ? heights.back() : *enough;
}

KernelFolder::KernelFolder(std::string folder) : folder_(std::move(folder)) {
  const fs::path index = fs::u8path(folder_) / kIndex;
  const std::string text = read(index, "make it: python -m msloc_edge.kernels.aot --out " + folder_);
  try {
    const Json content = Json::parse(text);
    const auto schema = content.at("schema").get<std::string>();
    if (schema != kKernelSchema)
      throw KernelUnusable(index.string() + ": expected schema " + kKernelSchema + ", got " + schema +
                           "; compile with this msloc-edge");
    for (const Json& entry : content.at("kernels")) {
      if (entry.at("dtype") != kDtype) continue;
      const bool portable = entry.at("portable").get<bool>();
      const char* const kind = portable ? "ptx" : "cubin";
      kernels_.push_back({kernel_of(entry), entry.at("sm").get<int>(), portable,
                          entry.at("files").at(kind).get<std::string>(),
                          entry.at("sha256").at(kind).get<std::string>()});
    }
  } catch (const KernelUnusable&) {
    throw;
  } catch (const std::exception& error) {
    throw KernelUnusable(index.string() + ": not a list of kernels (" + error.what() + "); compile again");
  }
}

const KernelFolder::Listed& KernelFolder::best(const std::string& name, int sm) const {
  const auto fits = [&](const Listed& listed, bool portable) {
    const bool device = portable ? listed.portable && listed.sm <= sm : !listed.portable && listed.sm == sm;
    return device && listed.kernel.name == name;
  };
  for (const bool portable : {false, true})
    for (const Listed& listed : kernels_)
      if (fits(listed, portable)) return listed;
  throw KernelUnusable(folder_ + ": expected " + name + " (" + kDtype + ") for sm_" + std::to_string(sm) +
                       ", found none; compile it: python -m msloc_edge.kernels.aot --out " + folder_);
}

Compiled KernelFolder::pick(const std::string& name, int sm) const {
  const Listed& listed = best(name, sm);
  const fs::path file = fs::u8path(folder_) / listed.file;
  Compiled kernel = listed.kernel;
  kernel.image = read(file, "compile again");
  if (sha256(kernel.image) != listed.sha256)
    throw KernelUnusable(file.string() + ": not the file that " + kIndex + " names; compile or copy it again");
  return kernel;
}

std::uint32_t blocks(const std::string& rule, Values values) {
  const std::uint64_t count = GridRule(rule, values).evaluate();
  if (count == 0 || count > std::numeric_limits<std::uint32_t>::max())
    throw KernelUnusable("a grid rule '" + rule + "': expected 1 to 2^32 - 1 blocks, got " + std::to_string(count) +
                         "; compile again");
  return static_cast<std::uint32_t>(count);
}

}  // namespace msloc
