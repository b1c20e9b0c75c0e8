// A failure inside the library, on its way to the C boundary.
#pragma once

#include <algorithm>
#include <exception>
#include <string>
#include <utility>

#include "msloc_edge.h"

namespace msloc {

/// A status and its sentence: "expected X, got Y; do Z".
class Failure : public std::exception {
 public:
  Failure(msloc_status status, std::string sentence) : status_(status), sentence_(std::move(sentence)) {}

  [[nodiscard]] msloc_status status() const noexcept { return status_; }
  [[nodiscard]] const char* what() const noexcept override { return sentence_.c_str(); }

 private:
  msloc_status status_;
  std::string sentence_;
};

/// Bytes that may be anything, as plain text for a sentence.
inline std::string printable(std::string text) {
  std::replace_if(
      text.begin(), text.end(), [](char c) { return c < ' ' || c > '~'; }, '?');
  return text;
}

}  // namespace msloc
