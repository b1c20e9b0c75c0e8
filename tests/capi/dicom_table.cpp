// Prints the film that the library makes of a DICOM file: status, or width, height, bits, warnings on a line, then the
// table [2**bits] float32 and the samples [height, width] uint16 as raw bytes. For test_dicom.py.
#include <cstdio>
#include <vector>

#include "dicom.h"
#include "failure.h"
#include "status.h"

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  std::vector<float> table(std::size_t{1} << 16);
  msloc::StatedSize stated;
  try {
    const msloc::DicomFilm read = msloc::read_dicom(argv[1], 120'000'000, table.data(), stated);
    std::printf("%d %d %d %u\n", read.film.size.width, read.film.size.height, read.film.bits, read.warnings);
    std::fwrite(table.data(), sizeof(float), std::size_t{1} << read.film.bits, stdout);
    std::fwrite(read.samples.data(), sizeof(std::uint16_t), read.samples.size(), stdout);
  } catch (const msloc::Failure& failure) {
    std::printf("%s\n%s\n", msloc::status_name(failure.status()), failure.what());
  }
}
