// The compiled kernels that the library carries; embed.py writes the table from the aot compiler's kernels.json.
#pragma once

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
