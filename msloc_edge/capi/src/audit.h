// One line of JSON for each film, without anything of the patient; msloc_audit_fn lists what it holds.
#pragma once

#include <string>
#include <vector>

#include "bundle.h"
#include "localizer.h"
#include "msloc_edge.h"

namespace msloc {

/// Writes lines into memory that is made once.
class Audit {
 public:
  Audit(const Bundle& bundle, const std::string& engine);

  /// The line of a film; it lives until the next. `localizer` has a result where the status is MSLOC_OK.
  const char* line(msloc_status status, const StatedSize& image, const Localizer& localizer, double total_ms) noexcept;

 private:
  void add(const char* text) noexcept;
  void add(const std::string& text) noexcept { add(text.c_str()); }
  void add_number(double value, int digits) noexcept;
  void add_time() noexcept;
  void add_abnormal(const Summary& summary, const Profile& profile) noexcept;
  void add_findings(const Localizer& localizer) noexcept;
  void add_timing(const Summary& summary) noexcept;

  std::string head_;                 // model and engine, which stay the same
  std::vector<std::string> labels_;  // as JSON strings
  std::string line_;
};

}  // namespace msloc
