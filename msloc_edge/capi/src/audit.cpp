#include "audit.h"

#include <charconv>
#include <cmath>
#include <cstdio>
#include <ctime>

#include "status.h"

namespace msloc {
namespace {

constexpr std::size_t kFixed = 1024;   // all but what grows with the classes
constexpr std::size_t kPerClass = 64;  // beside the name, which may occur twice

/// A JSON string; UTF-8 stays as it is (RFC 8259, sections 7 and 8.1).
std::string quoted(const std::string& text) {
  std::string json = "\"";
  for (const char c : text) {
    char escaped[8];
    if (c == '"' || c == '\\')
      json += {'\\', c};
    else if (static_cast<unsigned char>(c) < ' ')
      json.append(escaped, static_cast<std::size_t>(std::snprintf(escaped, sizeof escaped, "\\u%04x", c)));
    else
      json += c;
  }
  return json + '"';
}

}  // namespace

Audit::Audit(const Bundle& bundle, const std::string& engine) {
  head_ = R"("library":")" + std::to_string(MSLOC_VERSION_MAJOR) + "." + std::to_string(MSLOC_VERSION_MINOR) + "." +
          std::to_string(MSLOC_VERSION_PATCH) + R"(","model":{"name":)" + quoted(bundle.name) + R"(,"version":)" +
          quoted(bundle.version) + R"(,"sha256":")" + bundle.sha256 + R"("},"profile":)" + quoted(bundle.profile.name) +
          R"(,"engine":)" + quoted(engine);
  std::size_t size = kFixed + head_.size();
  for (const std::string& label : bundle.classes) {
    labels_.push_back(quoted(label));
    size += kPerClass + 2 * labels_.back().size();
  }
  line_.reserve(size);
}

const char* Audit::line(msloc_status status, const StatedSize& image, const Localizer& localizer,
                        double total_ms) noexcept {
  line_.clear();
  add(R"({"schema":"msloc-edge/audit/1","time":")");
  add_time();
  add(R"(",)");
  add(head_);
  add(R"(,"status":")");
  add(status_name(status));
  add(R"(","image":{"width":)");
  add_number(image.width, 0);
  add(R"(,"height":)");
  add_number(image.height, 0);
  add("}");
  if (status == MSLOC_OK) add_findings(localizer);
  add(R"(,"timing_ms":{)");
  if (status == MSLOC_OK) add_timing(localizer.summary());
  add(R"("total":)");
  add_number(total_ms, 3);
  add("}}");
  return line_.c_str();
}

void Audit::add(const char* text) noexcept { line_ += text; }

void Audit::add_number(double value, int digits) noexcept {  // the locale's comma has no place in JSON
  char text[32];
  const auto end = std::to_chars(text, text + sizeof text, value, std::chars_format::fixed, digits);
  line_.append(text, end.ec == std::errc() ? static_cast<std::size_t>(end.ptr - text) : 0);
}

void Audit::add_time() noexcept {
  std::timespec now{};
  std::timespec_get(&now, TIME_UTC);
  std::tm parts{};
  gmtime_r(&now.tv_sec, &parts);
  char text[96];
  std::snprintf(text, sizeof text, "%04d-%02d-%02dT%02d:%02d:%02d.%03ldZ", parts.tm_year + 1900, parts.tm_mon + 1,
                parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec, now.tv_nsec / 1000000);
  add(text);
}

/// As result.py writes it.
void Audit::add_abnormal(const Summary& summary, const Profile& profile) noexcept {
  add(R"(,"abnormal":)");
  if (std::isnan(summary.abnormal)) return add("null");
  add(R"({"score":)");
  add_number(summary.abnormal, 6);
  add(R"(,"threshold":)");
  if (profile.film)
    add_number(*profile.film, 6);
  else
    add("null");
  add(summary.passes ? R"(,"positive":true})" : R"(,"positive":false})");
}

void Audit::add_findings(const Localizer& localizer) noexcept {
  add_abnormal(localizer.summary(), localizer.bundle().profile);
  int boxes = 0;
  const std::vector<Finding>& findings = localizer.findings();
  add(R"(,"scores":{)");
  for (std::size_t k = 0; k < findings.size(); ++k) {
    add(k == 0 ? "" : ",");
    add(labels_[k]);
    add(":");
    add_number(findings[k].score, 6);
    boxes += findings[k].boxes_found;
  }
  add(R"(},"positive":[)");
  const char* separator = "";
  for (std::size_t k = 0; k < findings.size(); ++k) {
    if (!findings[k].positive) continue;
    add(separator);
    add(labels_[k]);
    separator = ",";
  }
  add(R"(],"boxes":)");
  add_number(boxes, 0);
  add(R"(,"warnings":)");
  add_number(localizer.summary().warnings, 0);
}

void Audit::add_timing(const Summary& summary) noexcept {
  add(R"("preprocess":)");
  add_number(summary.preprocess_ms, 3);
  add(R"(,"network":)");
  add_number(summary.network_ms, 3);
  add(R"(,"localize":)");
  add_number(summary.localize_ms, 3);
  add(",");
}

}  // namespace msloc
