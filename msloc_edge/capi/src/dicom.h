// DICOM files to films, by DCMTK: the display transform of msloc_edge/imaging/dicom.py.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "film.h"

namespace msloc {

/// A film and the memory that it lies in.
struct DicomFilm {
  std::vector<std::uint16_t> samples;
  Film film{};
  std::uint32_t warnings = 0;
};

/// Reads the first frame of a CR, DX or RG file, and fills table[2**bits]; `stated` becomes the size in its header as
/// soon as that is read, so that a refused film has one, too.
///
/// Throws Failure: MSLOC_UNREADABLE, _WRONG_MODALITY, _UNSUPPORTED_PIXELS, _UNSUPPORTED_CODEC, _TOO_SMALL, _TOO_LARGE,
/// and MSLOC_DICOM_MISSING in a build without DCMTK.
DicomFilm read_dicom(const std::string& path, std::uint64_t max_pixels, float* table, StatedSize& stated);

}  // namespace msloc
