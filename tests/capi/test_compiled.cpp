// Kernels compiled ahead of time: grid rules, tiles, and which file of a folder a device gets.
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "check.h"
#include "compiled.h"
#include "sha256.h"

using namespace msloc;

namespace {

namespace fs = std::filesystem;

/// The sentence of what `work` refuses; empty where it does not.
template <class Work>
std::string refusal(const Work& work) {
  try {
    work();
  } catch (const KernelUnusable& reason) {
    return reason.what();
  }
  return "";
}

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

void test_grid_rules() {
  const auto is = [](const std::string& rule, std::uint32_t expected) {
    check(blocks(rule, {{"B", 2}, {"J", 14}, {"H", 300}, {"tile_h", 128}}) == expected, rule);
  };
  is("1", 1);
  is("B * J * cdiv(H, tile_h) * cdiv(257, 256)", 168);
  is("H // tile_h + B - 1", 3);
  is("(B+J)*2", 32);
  is("cdiv((H + 4) // 2, cdiv(J, 3))", 31);
  for (const char* rule : {"", "B *", "cdiv(H)", "H / 2", "B ** 2", "H // 0", "cdiv(H, 0)", "(B", "B)", "12345678901"})
    check(has(refusal([&] { blocks(rule, {{"B", 2}, {"H", 300}}); }), "a grid rule '"), rule);
  for (const char* rule : {"0", "B - 2", "B - 3", "99999 * 99999"})
    check(has(refusal([&] { blocks(rule, {{"B", 2}}); }), "expected 1 to 2^32 - 1 blocks, got "), rule);
  check(has(refusal([] { blocks("B * K", {{"B", 2}}); }), "got one with K; compile again"), "a name that nobody knows");
}

void test_tiles() {  // as TileRule in msloc_edge/cuda/compiled.py
  const TileRule rule{{128, 32, 16}, 400};
  check(rule.tile_h(140, {288, 96}, 256) == 32, "280 programs of 128 rows, 840 of 32");
  check(rule.tile_h(400, {288, 96}, 256) == 128, "enough of the tallest");
  check(rule.tile_h(1, {64, 64}, 256) == 16, "never enough");
}

std::string entry(const std::string& name, int sm, bool portable, const std::string& file, const std::string& image) {
  const std::string kind = portable ? "ptx" : "cubin";
  const std::size_t dot = name.find('.');
  return R"({"operation": ")" + name.substr(0, dot) + R"(", "variant": ")" + name.substr(dot + 1) + R"(", "sm": )" +
         std::to_string(sm) + R"(, "portable": )" + (portable ? "true" : "false") +
         R"(, "dtype": "fp32", "entry": "f",
            "arguments": [{"name": "maps", "type": "*fp32"}, {"name": "H", "type": "i32"}],
            "aligned": [], "grid": ["H", "1", "1"], "block": 128, "shared": 64, "registers": 1, "spills": 0,
            "tile": {"heights": [8], "min_programs": 3}, "triton": "", "ptxas": "", "files": {")" +
         kind + R"(": ")" + file + R"("}, "sha256": {")" + kind + R"(": ")" + sha256(image) + R"("}})";
}

void write(const fs::path& file, const std::string& text) { std::ofstream(file, std::ios::binary) << text; }

void test_folder(const fs::path& folder) {
  const auto open = [&] { return KernelFolder(folder.string()); };
  check(
      has(refusal(open), "kernels.json: expected a readable file, got none; make it: python -m msloc_edge.kernels.aot"),
      "an empty folder");
  fs::create_directory(folder / "kernels.json");
  check(has(refusal(open), "kernels.json: expected a readable file, got none"), "a folder of that name");
  fs::remove(folder / "kernels.json");
  write(folder / "own.cubin", "cubin");
  write(folder / "any.ptx", "ptx");
  write(folder / "kernels.json", R"({"schema": "msloc-edge/kernels/3", "kernels": [)" +
                                     entry("regions.runs", 80, true, "any.ptx", "ptx") + "," +
                                     entry("regions.runs", 87, false, "own.cubin", "cubin") + "]}");
  const KernelFolder kernels = open();
  const Compiled own = kernels.pick("regions.runs", 87);
  check(own.image == "cubin" && own.entry == "f" && own.block == 128 && own.shared == 64, "its own cubin");
  check(own.arguments.size() == 2 && own.arguments[1] == "H" && own.tile && own.tile->heights[0] == 8, "its facts");
  check(kernels.pick("regions.runs", 86).image == "ptx", "the portable one");
  check(has(refusal([&] { (void)kernels.pick("regions.runs", 75); }), "regions.runs (fp32) for sm_75, found none"),
        "a device that is too old");
  check(has(refusal([&] { (void)kernels.pick("fuse_cams.peaks", 87); }), "found none"), "another kernel");
  write(folder / "own.cubin", "other");
  check(has(refusal([&] { (void)kernels.pick("regions.runs", 87); }), "not the file that kernels.json names"),
        "a hash");
  fs::remove(folder / "any.ptx");
  check(has(refusal([&] { (void)kernels.pick("regions.runs", 86); }), "any.ptx: expected a readable file"), "no file");

  write(folder / "kernels.json", R"({"schema": "msloc-edge/kernels/2", "kernels": []})");
  check(has(refusal(open), "expected schema msloc-edge/kernels/3, got msloc-edge/kernels/2"), "another schema");
  for (const char* text : {"[", "{}", R"({"schema": "msloc-edge/kernels/3", "kernels": [{"dtype": "fp32"}]})"}) {
    write(folder / "kernels.json", text);
    check(has(refusal(open), "not a list of kernels ("), text);
  }
}

}  // namespace

int main() {
  const fs::path folder = fs::temp_directory_path() / ("msloc_compiled." + std::to_string(getpid()));
  fs::create_directories(folder);
  test_grid_rules();
  test_tiles();
  test_folder(folder);
  fs::remove_all(folder);
  return finish();
}
