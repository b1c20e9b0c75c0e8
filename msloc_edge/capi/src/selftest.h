// The built-in film through an engine, compared with the golden result in the bundle: msloc_edge/selftest.py.
#pragma once

#include "localizer.h"

namespace msloc {

/// The largest difference of any class, and that of the film; see msloc_deviation.
struct Deviation {
  double logit = 0;
  double value = 0;
  double shift = 0;
  double iou = 1;
  double abnormal = 0;  // of the film
  int classes_beyond = 0;

  [[nodiscard]] bool within() const noexcept;
};

/// Localizes the built-in film, all classes. Throws Failure MSLOC_GOLDEN_MISSING, and what Localizer::run throws.
Deviation run_self_test(Localizer& localizer, const Checkpoint& checkpoint);

}  // namespace msloc
