#include "film.h"

#include <string>

#include "failure.h"

namespace msloc {
namespace {

[[noreturn]] void refuse(const std::string& sentence) { throw Failure(MSLOC_ARGUMENT, sentence); }

std::string text(std::uint64_t number) { return std::to_string(number); }

}  // namespace

void check_size(const StatedSize& size, std::uint64_t max_pixels) {
  const auto shown = [&] { return text(size.width) + " x " + text(size.height) + " pixels"; };
  if (size.width < kMinSide || size.height < kMinSide)
    throw Failure(MSLOC_TOO_SMALL, "expected at least " + text(kMinSide) + " pixels a side, got " + shown() +
                                       "; send the original film");
  if (size.height > max_pixels / size.width)
    throw Failure(MSLOC_TOO_LARGE, "expected at most " + text(max_pixels) + " pixels, got " + shown() +
                                       "; scale the film down or open with a larger max_pixels");
}

Film check_film(const msloc_pixels& pixels, std::uint64_t max_pixels) {
  const bool on_device = pixels.device_data != nullptr;
  if (on_device == (pixels.data != nullptr))
    refuse(on_device ? "expected data or device_data, got both; set one to NULL"
                     : "expected pixels, got data = NULL; point it to the first sample");
  const void* const data = on_device ? pixels.device_data : pixels.data;
  if (pixels.bits_allocated != 8 && pixels.bits_allocated != 16)
    refuse("expected bits_allocated of 8 or 16, got " + text(pixels.bits_allocated) + "; convert the film first");
  if (pixels.bits_stored > pixels.bits_allocated)
    refuse("expected bits_stored of at most bits_allocated, got " + text(pixels.bits_stored) + "; fix it");
  if (pixels.is_signed > 1) refuse("expected is_signed of 0 or 1, got " + text(pixels.is_signed) + "; fix it");
  if (pixels.photometric > MSLOC_MONOCHROME1)
    refuse("expected a photometric of MSLOC_MONOCHROME1 or 2, got " + text(pixels.photometric) + "; fix it");
  if (pixels.voi > MSLOC_VOI_TABLE) refuse("expected a voi of MSLOC_VOI_..., got " + text(pixels.voi) + "; fix it");
  check_size({pixels.width, pixels.height}, max_pixels);

  const std::uint64_t sample = pixels.bits_allocated / 8;
  const std::uint64_t packed = sample * pixels.width;
  const std::uint64_t stride = pixels.row_stride == 0 ? packed : pixels.row_stride;
  if (stride < packed || stride % sample != 0 || stride > pixels.data_size)
    refuse("expected a row_stride of at least " + text(packed) + " bytes, whole samples and within data_size, got " +
           text(stride) + "; fix it");
  if ((pixels.data_size - packed) / stride < pixels.height - 1)
    refuse("expected data_size to hold " + text(pixels.height) + " rows of " + text(stride) + " bytes, got " +
           text(pixels.data_size) + "; look at height and row_stride");
  if (reinterpret_cast<std::uintptr_t>(data) % sample != 0)
    refuse("expected 16-bit samples on an even address, got an odd one; copy the film");
  const std::uint32_t bits = pixels.bits_stored == 0 ? pixels.bits_allocated : pixels.bits_stored;
  return {data,
          static_cast<std::ptrdiff_t>(stride),
          {static_cast<int>(pixels.width), static_cast<int>(pixels.height)},
          sample == 2,
          static_cast<int>(bits),
          on_device,
          pixels.stream};
}

}  // namespace msloc
