// Elements of a DICOM data set, the first value of each; what is absent or empty is no value.
#pragma once

#include <dcmtk/config/osconfig.h>
#include <dcmtk/dcmdata/dctk.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <string>

#include "failure.h"

namespace msloc {

[[noreturn]] inline void unreadable(const std::string& expected, const std::string& got) {
  throw Failure(MSLOC_UNREADABLE, "expected " + expected + ", got " + got + "; export the film again");
}

/// Text in upper case, without blanks around it.
inline std::string text_of(DcmItem& item, const DcmTagKey& tag) {
  OFString value;
  if (item.findAndGetOFString(tag, value).bad()) return {};
  std::string text;
  for (const char c : value)
    if (c != ' ' || !text.empty()) text += c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
  return text.substr(0, text.find_last_not_of(' ') + 1);
}

/// What a sentence may quote of a header: a code string (PS3.5 section 6.2). Anything else may be of the patient, where
/// a length is wrong.
inline std::string quotable(const std::string& text) {
  constexpr std::size_t kLongest = 16;
  const bool legal = std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == ' ' || c == '_';
  });
  return legal && !text.empty() && text.size() <= kLongest ? text : "something else";
}

/// A number of any value representation.
inline std::optional<double> number_of(DcmItem& item, const DcmTagKey& tag, unsigned long position = 0) {
  OFString text;
  if (item.findAndGetOFString(tag, text, position).bad() || text.empty()) return std::nullopt;
  OFBool valid = OFFalse;
  const double number = OFStandard::atof(text.c_str(), &valid);
  if (!valid || !std::isfinite(number))
    unreadable(std::string("a number in ") + DcmTag(tag).getTagName(), "another value");
  return number;
}

inline int integer_of(DcmItem& item, const DcmTagKey& tag, std::optional<int> otherwise = std::nullopt) {
  const std::optional<double> number = number_of(item, tag);
  if (!number && !otherwise) unreadable(std::string("the element ") + DcmTag(tag).getTagName(), "none");
  return number ? static_cast<int>(std::clamp(*number, -2147483647.0, 2147483647.0)) : *otherwise;
}

}  // namespace msloc
