#include "selftest.h"

#include <algorithm>
#include <cmath>

#include "failure.h"
#include "selftest_film.h"

namespace msloc {
namespace {

// As msloc_edge.selftest, which says why.
constexpr double kLogit = 1e-3;
constexpr double kValue = 1e-2;
constexpr double kShift = 0.01;
constexpr double kIou = 0.95;
constexpr double kAbnormal = 1e-3;
constexpr double kStrong = 0.1;

using Corner = std::array<double, 4>;  // x, y, width, height

double iou(const Corner& a, const Corner& b) {
  const double across = std::min(a[0] + a[2], b[0] + b[2]) - std::max(a[0], b[0]);
  const double down = std::min(a[1] + a[3], b[1] + b[3]) - std::max(a[1], b[1]);
  const double both = std::max(across, 0.0) * std::max(down, 0.0);
  const double all = a[2] * a[3] + b[2] * b[3] - both;
  return all > 0 ? both / all : 0;
}

double worst_partner(const std::vector<Corner>& some, const std::vector<Corner>& others) {
  double worst = 1;
  for (const Corner& box : some) {
    double best = 0;
    for (const Corner& other : others) best = std::max(best, iou(box, other));
    worst = std::min(worst, best);
  }
  return worst;
}

/// The IoU of the worst pair of boxes, as msloc_edge.maps.boxes.agreement.
double agreement(const std::vector<Corner>& found, const std::vector<Corner>& golden) {
  if (found.size() != golden.size()) return 0;
  return std::min(worst_partner(found, golden), worst_partner(golden, found));
}

std::vector<Corner> strong_boxes(const Finding& finding) {
  std::vector<Corner> strong;
  for (const msloc_box& box : finding.boxes)
    if (box.score >= kStrong * finding.score) strong.push_back({box.x, box.y, box.w, box.h});
  return strong;
}

/// How far a peak may move where a map is flat, in widths of the film: msloc_edge.selftest.flat_corner.
double flat_corner(const Bundle& bundle) {
  const double down = static_cast<double>(bundle.input.height) / bundle.stages.front().height;
  const double across = static_cast<double>(bundle.input.width) / bundle.stages.front().width;
  const double scale = std::min(static_cast<double>(bundle.input.height) / kSelfTestHeight,
                                static_cast<double>(bundle.input.width) / kSelfTestWidth);
  return std::hypot(down, across) / 2 / scale / kSelfTestWidth;
}

}  // namespace

bool Deviation::within() const noexcept { return classes_beyond == 0 && abnormal <= kAbnormal; }

Deviation run_self_test(Localizer& localizer, const Checkpoint& checkpoint) {
  const Bundle& bundle = localizer.bundle();
  if (!bundle.golden || bundle.golden->film != kSelfTestSha256)
    throw Failure(MSLOC_GOLDEN_MISSING, bundle.name + ": expected a golden result of this version's film, got " +
                                            (bundle.golden ? "one of another film" : "none") +
                                            "; export the bundle again");
  for (int pattern = 0; pattern < 256; ++pattern) localizer.table()[pattern] = static_cast<float>(pattern) / 255.0F;
  localizer.run({kSelfTestPixels, kSelfTestWidth, {kSelfTestWidth, kSelfTestHeight}, false, 8}, 0, true, checkpoint);

  const double shift_limit = std::max(kShift, flat_corner(bundle));
  Deviation worst;
  if (bundle.golden->abnormal) worst.abnormal = std::abs(localizer.summary().abnormal - *bundle.golden->abnormal);
  for (std::size_t k = 0; k < bundle.golden->findings.size(); ++k) {
    const GoldenFinding& golden = bundle.golden->findings[k];
    const Finding& found = localizer.findings()[k];
    const double logit = std::abs(found.logit - golden.logit);
    const double value = std::abs(found.peak.value - golden.peak[2]);
    const double shift =
        std::hypot(found.peak_at.x - golden.peak[0], found.peak_at.y - golden.peak[1]) / kSelfTestWidth;
    const double overlap = agreement(strong_boxes(found), golden.boxes);
    const bool within = logit <= kLogit && value <= kValue && shift <= shift_limit && overlap >= kIou;
    worst.classes_beyond += within ? 0 : 1;
    worst.logit = std::max(worst.logit, logit);
    worst.value = std::max(worst.value, value);
    worst.shift = std::max(worst.shift, shift);
    worst.iou = std::min(worst.iou, overlap);
  }
  return worst;
}

}  // namespace msloc
