// Any msloc_pixels over any samples, through the C API around an engine of fixed outputs: refused by a status, or
// findings whose numbers are numbers. The samples and the table lie in memory of exactly their size.
#include <unistd.h>

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "../fake_engine.h"
#include "msloc_edge.h"

namespace {

void require(bool holds) {
  if (!holds) std::abort();
}

/// The head before the samples, in numbers so narrow that most of what they can say matters. seeds.py writes it, too.
struct Head {
  std::uint16_t width, height, row_stride, table_size;
  std::uint8_t bits_allocated, bits_stored, is_signed, photometric, voi, unused[3];
  float center, window_width, slope, intercept;
};

msloc_localizer* open_fake() {
  for (std::size_t i = 0; i < script.cams[0].size(); ++i) script.cams[0][i] = static_cast<float>(i % 7) * 3;
  const std::string folder =
      (std::filesystem::temp_directory_path() / ("msloc_fuzz." + std::to_string(getpid()))).string();
  write_bundle(folder);
  msloc_options options = MSLOC_OPTIONS_INIT;
  options.bundle = folder.c_str();
  options.threads = 1;
  options.max_pixels = 1 << 20;
  msloc_localizer* localizer = nullptr;
  require(msloc_open(&options, &localizer) == MSLOC_OK);
  std::filesystem::remove_all(folder);
  return localizer;
}

void check_findings(msloc_localizer* localizer, const msloc_pixels& pixels) {
  msloc_finding finding = MSLOC_FINDING_INIT;
  msloc_box boxes[16];
  for (std::uint32_t k = 0; k < 2; ++k) {
    require(msloc_get_finding(localizer, k, &finding) == MSLOC_OK && finding.positive <= finding.boxes);
    require(finding.localized == 1 && finding.score >= 0 && finding.score <= 1 && finding.boxes <= 16);
    require(finding.peak_x >= 0 && finding.peak_x <= pixels.width && finding.peak_y >= 0);
    require(finding.peak_y <= pixels.height && msloc_get_boxes(localizer, k, boxes, 16) == MSLOC_OK);
    for (std::uint32_t i = 0; i < finding.boxes; ++i) {
      require(boxes[i].x >= 0 && boxes[i].y >= 0 && boxes[i].w > 0 && boxes[i].h > 0);
      require(boxes[i].x + boxes[i].w <= pixels.width + 1e-6 && boxes[i].y + boxes[i].h <= pixels.height + 1e-6);
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static msloc_localizer* const localizer = open_fake();
  Head head{};
  if (size < sizeof head) return 0;
  std::memcpy(&head, data, sizeof head);
  const std::vector<std::uint8_t> samples(data + sizeof head, data + size);
  std::vector<float> table(head.voi == MSLOC_VOI_TABLE ? head.table_size : 0);
  for (std::size_t i = 0; i < table.size() && !samples.empty(); ++i)
    table[i] = static_cast<float>(samples[i % samples.size()]) / 254;  // 255 is above 1

  msloc_pixels pixels = MSLOC_PIXELS_INIT;
  pixels.width = head.width, pixels.height = head.height;
  pixels.bits_allocated = head.bits_allocated, pixels.bits_stored = head.bits_stored;
  pixels.is_signed = head.is_signed, pixels.photometric = head.photometric, pixels.voi = head.voi;
  pixels.data = samples.data(), pixels.data_size = samples.size(), pixels.row_stride = head.row_stride;
  pixels.window_center = static_cast<double>(head.center);
  pixels.window_width = static_cast<double>(head.window_width);
  pixels.rescale_slope = static_cast<double>(head.slope);
  pixels.rescale_intercept = static_cast<double>(head.intercept);
  pixels.table = table.data(), pixels.table_size = static_cast<std::uint32_t>(table.size());
  msloc_request request = MSLOC_REQUEST_INIT;
  request.all_classes = 1;
  const msloc_status status = msloc_localize(localizer, &pixels, &request);
  if (status == MSLOC_OK) return check_findings(localizer, pixels), 0;
  require(status == MSLOC_ARGUMENT || status == MSLOC_TOO_SMALL || status == MSLOC_TOO_LARGE ||
          status == MSLOC_CONSTANT || status == MSLOC_BAD_WINDOW);
  return 0;
}
