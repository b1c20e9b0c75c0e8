// The display transform of a DICOM data set, PS3.3 C.11, as one table: _Film.display of msloc_edge/imaging/dicom.py.
#pragma once

#include <cstdint>
#include <vector>

class DcmItem;

namespace msloc {

/// Fills table[2**bits] with the displayed brightness of each bit pattern, 1 = white, and returns warnings.
///
/// samples  all bit patterns of the film, each below 2**bits: what no window names is stretched over those that occur
///
/// Throws Failure MSLOC_UNREADABLE for numbers and tables that cannot be.
std::uint32_t fill_display(DcmItem& film, const std::vector<std::uint16_t>& samples, int bits, float* table);

}  // namespace msloc
