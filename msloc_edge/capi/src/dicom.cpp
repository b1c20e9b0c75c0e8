#include "dicom.h"

#include <dcmtk/dcmdata/dccodec.h>
#include <dcmtk/dcmdata/dcrledrg.h>
#include <dcmtk/dcmjpeg/djdecode.h>
#include <dcmtk/dcmjpls/djdecode.h>
#include <dcmtk/oflog/appender.h>
#include <dcmtk/oflog/oflog.h>
#include <dcmtk/oflog/spi/logevent.h>

#include <array>

#include "display.h"
#include "elements.h"

namespace msloc {
namespace {

namespace log4cplus = dcmtk::log4cplus;

/// Set by DCMTK's JPEG decoder, in its thread.
thread_local bool pixels_are_missing = false;

template <std::size_t N>
bool contains_any(const std::string& text, const std::array<const char*, N>& parts) {
  return std::any_of(parts.begin(), parts.end(),
                     [&](const char* part) { return text.find(part) != std::string::npos; });
}

/// Listens to what DCMTK only warns of: a codestream without some of its pixels is decoded as if they were grey.
class MissingPixels : public log4cplus::Appender {
 public:
  MissingPixels() = default;
  MissingPixels(const MissingPixels&) = delete;
  MissingPixels& operator=(const MissingPixels&) = delete;
  MissingPixels(MissingPixels&&) = delete;
  MissingPixels& operator=(MissingPixels&&) = delete;
  ~MissingPixels() override { destructorImpl(); }
  void close() override {}

 protected:
  void append(const log4cplus::spi::InternalLoggingEvent& event) override {
    constexpr std::array<const char*, 3> words{"remature end", "bad Huffman", "instead of RST"};  // of libjpeg
    // OFString is std::string in some builds of DCMTK alone. NOLINTNEXTLINE(readability-redundant-string-cstr)
    if (contains_any(event.getMessage().c_str(), words)) pixels_are_missing = true;
  }
};

/// The codecs of DCMTK: RLE, JPEG, JPEG-LS. They belong to the process and stay.
void register_codecs() {
  static const bool once = [] {
    OFLog::getLogger("dcmtk.dcmjpeg").addAppender(log4cplus::SharedAppenderPtr(new MissingPixels));
    DcmRLEDecoderRegistration::registerCodecs();
    DJDecoderRegistration::registerCodecs();
    DJLSDecoderRegistration::registerCodecs();
    return true;
  }();
  static_cast<void>(once);
}

/// Refuses what is no projection radiograph; returns what is no frontal chest film meant for display.
std::uint32_t check_kind(DcmItem& film) {
  constexpr std::array<const char*, 5> chest{"CHEST", "THORA", "TORAX", "LUNG", "CXR"};
  constexpr std::array<const char*, 2> turned{"LAT", "OBL"};
  constexpr std::array<const char*, 8> views{"LL", "RL", "LLO", "RLO", "LAO", "RAO", "LPO", "RPO"};
  std::uint32_t warnings = 0;
  const std::string modality = text_of(film, DCM_Modality);
  if (modality.empty() || modality == "OT")
    warnings |= MSLOC_WARNING_MODALITY;
  else if (modality != "CR" && modality != "DX" && modality != "RG")
    throw Failure(MSLOC_WRONG_MODALITY, "expected a projection radiograph (CR, DX, RG), got " +
                                            quotable(modality) + " as modality; send the chest film itself");
  if (text_of(film, DCM_PresentationIntentType) == "FOR PROCESSING" ||
      text_of(film, DCM_SOPClassUID) == UID_DigitalXRayImageStorageForProcessing)
    warnings |= MSLOC_WARNING_FOR_PROCESSING;
  const std::string view = text_of(film, DCM_ViewPosition);
  if (std::find(views.begin(), views.end(), view) != views.end() || contains_any(view, turned))
    warnings |= MSLOC_WARNING_NOT_FRONTAL;
  const std::string part = text_of(film, DCM_BodyPartExamined);
  if (!part.empty() && !contains_any(part, chest)) warnings |= MSLOC_WARNING_NOT_CHEST;
  return warnings;
}

/// The place of a sample: the `bits` bits from `low_bit` on, PS3.5 section 8.1.1.
struct Depth {
  int allocated;
  int bits;
  int low_bit;
};

Depth check_depth(DcmItem& film) {
  const auto refuse = [](const std::string& got) {
    throw Failure(MSLOC_UNSUPPORTED_PIXELS, "expected grey pixels, MONOCHROME1 or 2, of 8 or 16 bits allocated, got " +
                                                got + "; convert the film");
  };
  const std::string photometric = text_of(film, DCM_PhotometricInterpretation);
  if (integer_of(film, DCM_SamplesPerPixel) != 1 || (photometric != "MONOCHROME1" && photometric != "MONOCHROME2"))
    refuse(quotable(photometric));
  const int allocated = integer_of(film, DCM_BitsAllocated);
  const int bits = integer_of(film, DCM_BitsStored);
  const int low_bit = integer_of(film, DCM_HighBit, bits - 1) - bits + 1;
  if ((allocated != 8 && allocated != 16) || bits < 1 || bits > allocated || low_bit < 0 || low_bit > allocated - bits)
    refuse(std::to_string(bits) + " bits stored of " + std::to_string(allocated));
  return {allocated, bits, low_bit};
}

/// The first `count` cells of uncompressed pixel data.
std::vector<std::uint16_t> cells_of(DcmItem& film, std::size_t count, int allocated) {
  const Uint8* bytes = nullptr;
  const Uint16* words = nullptr;
  unsigned long size = 0;
  std::vector<std::uint16_t> cells;
  if (allocated == 16 && film.findAndGetUint16Array(DCM_PixelData, words, &size).good() && words != nullptr &&
      size >= count)
    cells.assign(words, words + count);
  else if (allocated == 8 && film.findAndGetUint8Array(DCM_PixelData, bytes, &size).good() && bytes != nullptr &&
           size >= count)
    cells.assign(bytes, bytes + count);
  else if (allocated == 8 && film.findAndGetUint16Array(DCM_PixelData, words, &size).good() && words != nullptr &&
           2 * size >= count)
    for (std::size_t i = 0; i < count; ++i)  // OW: the first pixel is the low byte, PS3.5 section 8.2
      cells.push_back(static_cast<std::uint16_t>(words[i / 2] >> (8 * (i % 2)) & 0xFF));
  else
    unreadable("a whole film", "one without pixels, or that ends early");
  return cells;
}

void decompress(DcmDataset& film) {
  const DcmXfer syntax(film.getOriginalXfer());
  if (!syntax.isEncapsulated()) return;
  if (DcmCodecList::canChangeCoding(film.getOriginalXfer(), EXS_LittleEndianExplicit) == OFFalse)
    throw Failure(MSLOC_UNSUPPORTED_CODEC, std::string("expected a transfer syntax that DCMTK decodes, got ") +
                                               syntax.getXferName() +
                                               "; convert it to Explicit VR Little Endian first");
  pixels_are_missing = false;
  if (film.chooseRepresentation(EXS_LittleEndianExplicit, nullptr).bad() || pixels_are_missing)
    unreadable("a film that decodes whole", "one that is damaged, or ends early");
}

}  // namespace

DicomFilm read_dicom(const std::string& path, std::uint64_t max_pixels, float* table, StatedSize& stated) {
  register_codecs();
  DcmFileFormat file;
  if (file.loadFile(path.c_str()).bad()) unreadable("a DICOM file", "none that can be read");
  DcmDataset& film = *file.getDataset();

  DicomFilm read;
  read.warnings = check_kind(film);
  const int width = integer_of(film, DCM_Columns);
  const int height = integer_of(film, DCM_Rows);
  stated = {static_cast<std::uint32_t>(width), static_cast<std::uint32_t>(height)};
  check_size(stated, max_pixels);
  const Depth depth = check_depth(film);
  const bool samples_alone = DcmXfer(film.getOriginalXfer()).isEncapsulated();  // a codestream holds no other bits
  decompress(film);
  read.samples = cells_of(film, static_cast<std::size_t>(width) * static_cast<std::size_t>(height), depth.allocated);
  const int shift = samples_alone ? 0 : depth.low_bit;
  const int mask = (1 << depth.bits) - 1;
  for (std::uint16_t& sample : read.samples) sample = static_cast<std::uint16_t>(sample >> shift & mask);
  read.warnings |= fill_display(film, read.samples, depth.bits, table);
  read.film = {read.samples.data(), std::ptrdiff_t{2} * width, {width, height}, true, depth.bits};
  return read;
}

}  // namespace msloc
