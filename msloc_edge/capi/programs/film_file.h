// Films in files that hold nothing but pixels: PGM, and frames without a header.
#pragma once

#include <cstdint>
#include <memory>
#include <msloc_edge.hpp>
#include <optional>
#include <string>
#include <vector>

/// The shape of a frame without a header: little-endian samples in packed rows, of one byte up to 8 bits, else of two.
struct RawShape {
  std::uint32_t width;
  std::uint32_t height;
  std::uint32_t bits;

  /// The shape that WIDTHxHEIGHT:BITS says, such as 2500x3000:12.
  static std::optional<RawShape> parse(const char* text);
};

/// A film in memory.
struct FilmFile {
  std::vector<std::uint16_t> samples;
  RawShape shape;

  [[nodiscard]] msloc_pixels pixels() const {
    return msloc_edge::pixels(samples.data(), shape.width, shape.height, shape.bits);
  }
};

/// Whether a file's content begins as a binary PGM does (Netpbm P5).
bool is_pgm(const std::string& content);

/// The film of a binary PGM, brighter = whiter. An Error is MSLOC_UNREADABLE.
msloc_edge::Expected<FilmFile> read_pgm(const std::string& content);

/// The film of a frame without a header. An Error is MSLOC_UNREADABLE.
msloc_edge::Expected<FilmFile> read_raw(const std::string& content, const RawShape& shape);
