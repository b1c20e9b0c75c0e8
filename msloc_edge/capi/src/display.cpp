#include "display.h"

#include <algorithm>
#include <cmath>

#include "elements.h"
#include "window.h"

namespace msloc {
namespace {

using Values = std::vector<double>;

/// The entries of a LUT item, which stand for the values from `first` on: PS3.3 C.11.1.1, C.11.2.1.1.
struct Lut {
  std::vector<std::uint16_t> entries;
  int first = 0;
  double top = 1;  // the largest entry that its bits can hold

  Lut(DcmItem& item, const Values& values) {
    const int descriptor = integer_of(item, DCM_LUTDescriptor);
    const auto count = static_cast<std::size_t>((descriptor & 0xFFFF) == 0 ? 1 << 16 : descriptor & 0xFFFF);
    first = first_mapped(static_cast<int>(number_of(item, DCM_LUTDescriptor, 1).value_or(0)), count, values);
    const Uint16* words = nullptr;
    unsigned long size = 0;
    if (item.findAndGetUint16Array(DCM_LUTData, words, &size).bad() || words == nullptr) size = 0;
    if (size >= count)
      entries.assign(words, words + count);
    else if (2 * size >= count)  // entries of 8 bits, two in a word
      for (std::size_t i = 0; i < count; ++i)
        entries.push_back(static_cast<std::uint16_t>(words[i / 2] >> (8 * (i % 2)) & 0xFF));
    else
      unreadable("a LUT of " + std::to_string(count) + " entries", std::to_string(size));
    // The descriptor of an image can say 8 or 16 bits alone: the entries tell how many they use.
    unsigned held = 0xFF;
    while (held < *std::max_element(entries.begin(), entries.end())) held = 2 * held + 1;
    top = held;
  }

  /// The first value, whose VR may have the wrong sign: of both readings, the one that maps more of the values.
  static int first_mapped(int stated, std::size_t count, const Values& values) {
    const auto [lowest, highest] = std::minmax_element(values.begin(), values.end());
    const auto mapped = [&, low = *lowest, high = *highest](int start) {
      return std::min(start + static_cast<double>(count), high + 1) - std::max(static_cast<double>(start), low);
    };
    const int other = stated > 0 ? stated - (1 << 16) : stated + (1 << 16);
    return mapped(other) > mapped(stated) ? other : stated;
  }

  [[nodiscard]] double operator()(double value) const {
    const double index = std::clamp(std::nearbyint(value) - first, 0.0, static_cast<double>(entries.size() - 1));
    return entries[static_cast<std::size_t>(index)];
  }
};

DcmItem* first_item(DcmItem& film, const DcmTagKey& sequence) {
  DcmItem* item = nullptr;
  return film.findAndGetSequenceItem(sequence, item).good() ? item : nullptr;
}

/// The stored values that are no film: PS3.3 C.7.5.1.1.2.
struct Padding {
  double low = 1;
  double high = 0;

  Padding(DcmItem& film, double highest) {
    const std::optional<double> value = number_of(film, DCM_PixelPaddingValue);
    if (!value) return;
    const double limit = number_of(film, DCM_PixelPaddingRangeLimit).value_or(*value);
    low = std::min(*value, limit);
    high = std::max(*value, limit);
    if (low > highest && highest >= high - 65536) low -= 65536, high -= 65536;  // signed, written unsigned
  }

  [[nodiscard]] bool operator()(double stored) const { return low <= stored && stored <= high; }
};

/// Converts stored values to the modality's units, by a table or a line: PS3.3 C.11.1.
std::uint32_t apply_modality(DcmItem& film, Values& values) {
  if (DcmItem* item = first_item(film, DCM_ModalityLUTSequence)) {
    const Lut lut(*item, values);
    std::transform(values.begin(), values.end(), values.begin(), lut);
    return 0;
  }
  double slope = number_of(film, DCM_RescaleSlope).value_or(1);
  const double intercept = number_of(film, DCM_RescaleIntercept).value_or(0);
  const bool flat = slope == 0;
  if (flat) slope = 1;
  for (double& value : values) value = value * slope + intercept;
  return flat ? MSLOC_WARNING_NONCONFORMANT : 0;
}

/// The window of the film, if it names one that can be: PS3.3 C.11.2.1.2.
std::optional<Window> window_of(DcmItem& film, bool deep, std::uint32_t& warnings) {
  const std::optional<double> center = number_of(film, DCM_WindowCenter);
  const std::optional<double> width = number_of(film, DCM_WindowWidth);
  const std::string name = text_of(film, DCM_VOILUTFunction);
  std::uint32_t function = MSLOC_VOI_LINEAR;
  if (name == "LINEAR_EXACT") function = MSLOC_VOI_LINEAR_EXACT;
  if (name == "SIGMOID") function = MSLOC_VOI_SIGMOID;
  if (function == MSLOC_VOI_LINEAR && !name.empty() && name != "LINEAR") warnings |= MSLOC_WARNING_NONCONFORMANT;
  if (!center || !width) {
    if (deep) warnings |= MSLOC_WARNING_NO_WINDOW;  // 8 bits are what a screen shows already
    return std::nullopt;
  }
  if (*width >= 1 || (*width > 0 && function != MSLOC_VOI_LINEAR)) return Window{function, *center, *width};
  warnings |= MSLOC_WARNING_BAD_WINDOW;
  return std::nullopt;
}

/// Converts modality values to [0, 1], PS3.3 C.11.2; without table and window those of `film_values` are stretched.
std::uint32_t apply_voi(DcmItem& film, const std::vector<bool>& occurs, Values& values) {
  std::uint32_t warnings = 0;
  if (DcmItem* item = first_item(film, DCM_VOILUTSequence)) {
    if (item->tagExistsWithValue(DCM_LUTDescriptor) && item->tagExistsWithValue(DCM_LUTData)) {
      const Lut lut(*item, values);
      for (double& value : values) value = lut(value) / lut.top;
      return 0;
    }
    warnings |= MSLOC_WARNING_NONCONFORMANT;  // an item without its table, which says nothing
  }
  const bool deep = values.size() > 256;
  if (const std::optional<Window> window = window_of(film, deep, warnings)) {
    std::transform(values.begin(), values.end(), values.begin(), *window);
    return warnings;
  }
  double low = HUGE_VAL;
  double high = -HUGE_VAL;
  for (std::size_t i = 0; i < values.size(); ++i)
    if (!deep || occurs[i]) low = std::min(low, values[i]), high = std::max(high, values[i]);
  const double range = high > low ? high - low : 1;
  for (double& value : values) value = std::clamp((value - low) / range, 0.0, 1.0);
  return warnings;
}

}  // namespace

std::uint32_t fill_display(DcmItem& film, const std::vector<std::uint16_t>& samples, int bits, float* table) {
  // PS3.5 section 8.1.1: PixelRepresentation 1 is two's complement
  const bool is_signed = integer_of(film, DCM_PixelRepresentation, 0) == 1;
  const double highest = is_signed ? (1 << (bits - 1)) - 1 : (1 << bits) - 1;
  Values values(std::size_t{1} << bits);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = stored_value(static_cast<int>(i), bits, is_signed);
  const Padding is_padding(film, highest);
  std::vector<bool> occurs(values.size());
  for (const std::uint16_t sample : samples) occurs[sample] = true;
  std::vector<bool> padding(values.size());
  for (std::size_t i = 0; i < values.size(); ++i) padding[i] = is_padding(values[i]);
  for (std::size_t i = 0; i < values.size(); ++i) occurs[i] = occurs[i] && !padding[i];

  std::uint32_t warnings = apply_modality(film, values);
  warnings |= apply_voi(film, occurs, values);
  // PS3.3 C.7.6.3.1.2: MONOCHROME1 takes effect after the VOI step; padding is black
  const bool inverted = text_of(film, DCM_PhotometricInterpretation) == "MONOCHROME1";
  for (std::size_t i = 0; i < values.size(); ++i) {
    const double shown = inverted ? 1 - values[i] : values[i];
    table[i] = static_cast<float>(padding[i] ? 0 : shown);
    if (!std::isfinite(table[i]))
      throw Failure(MSLOC_BAD_WINDOW,
                    "expected a window and a rescale that give numbers, got others; export the film again");
  }
  return warnings;
}

}  // namespace msloc
