#include "dicom.h"
#include "failure.h"

namespace msloc {

DicomFilm read_dicom(const std::string& /*path*/, std::uint64_t /*max_pixels*/, float* /*table*/,
                     StatedSize& /*stated*/) {
  throw Failure(
      MSLOC_DICOM_MISSING,
      "expected a library built with DCMTK, got one without; build it with -DMSLOC_WITH_DCMTK=ON, or read the "
      "file yourself and call msloc_localize");
}

}  // namespace msloc
