// The compiled kernels that the library carries; embed.py writes the table from the aot compiler's kernels.json.
#pragma once

#include <array>
#include <cstdint>

namespace msloc {

/// Of the class maps and of the result.
enum class Type { fp32, fp16 };

/// fuse_cams, form "maps", for one device; the portable form is PTX for every device from `sm` on.
struct Image {
  Type type;
  int sm;
  bool portable;
  const char* entry;
  unsigned threads;  // of a block, two columns of the map each
  std::array<std::int32_t, 3> tile_h;  // rows of a program: the first that makes min_programs programs, else the last
  std::int64_t min_programs;
  const void* data;  // a cubin, or PTX that ends in a zero byte
};

struct Images {
  const Image* first;
  const Image* past;
  [[nodiscard]] const Image* begin() const { return first; }
  [[nodiscard]] const Image* end() const { return past; }
};

extern const Images images;

}  // namespace msloc
