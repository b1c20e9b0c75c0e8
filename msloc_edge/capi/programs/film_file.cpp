#include "film_file.h"

#include <cstdio>
#include <limits>
#include <sstream>

namespace {

constexpr std::uint32_t kMaxSide = 65535;

msloc_edge::Error unreadable(const std::string& expected, const std::string& got) {
  return {MSLOC_UNREADABLE, "expected " + expected + ", got " + got + "; send the original film"};
}

bool fits(const RawShape& shape) {
  return shape.width > 0 && shape.width <= kMaxSide && shape.height > 0 && shape.height <= kMaxSide && shape.bits > 0 &&
         shape.bits <= 16;
}

/// The samples behind `at`, whose high byte is the first or the second of two.
msloc_edge::Expected<FilmFile> samples_of(const std::string& content, std::size_t at, const RawShape& shape,
                                          bool big_endian) {
  const std::size_t count = std::size_t{shape.width} * shape.height;
  const std::size_t bytes = shape.bits > 8 ? 2 : 1;
  if (content.size() - at != count * bytes)
    return unreadable(std::to_string(count * bytes) + " bytes of pixels", std::to_string(content.size() - at));
  FilmFile film{std::vector<std::uint16_t>(count), shape};
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(content[at + i]); };
  for (std::size_t i = 0; i < count; ++i)
    film.samples[i] = bytes == 1   ? byte(i)
                      : big_endian ? static_cast<std::uint16_t>(byte(2 * i) << 8 | byte(2 * i + 1))
                                   : static_cast<std::uint16_t>(byte(2 * i + 1) << 8 | byte(2 * i));
  return film;
}

/// The next number of a PGM's header, behind white space and comments.
std::uint32_t number(std::istream& header) {
  while ((header >> std::ws).peek() == '#') header.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
  std::uint32_t value = 0;
  header >> value;
  return header ? value : 0;
}

}  // namespace

std::optional<RawShape> RawShape::parse(const char* text) {
  RawShape shape{};
  char rest = 0;
  const int read = std::sscanf(text, "%ux%u:%u%c", &shape.width, &shape.height, &shape.bits, &rest);
  if (read != 3 || !fits(shape)) return {};
  return shape;
}

bool is_pgm(const std::string& content) { return content.rfind("P5", 0) == 0; }

msloc_edge::Expected<FilmFile> read_pgm(const std::string& content) {
  std::istringstream header(content.substr(0, 4096));
  header.ignore(2);
  RawShape shape{};
  shape.width = number(header);
  shape.height = number(header);
  const std::uint32_t largest = number(header);
  while (shape.bits < 17 && largest >> shape.bits != 0) ++shape.bits;
  header.get();  // one white space before the pixels
  if (!header || !fits(shape)) return unreadable("a PGM of 8 or 16 bits", "another header");
  return samples_of(content, static_cast<std::size_t>(header.tellg()), shape, true);
}

msloc_edge::Expected<FilmFile> read_raw(const std::string& content, const RawShape& shape) {
  return samples_of(content, 0, shape, false);
}
