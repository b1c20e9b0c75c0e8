// The built-in film through an engine, compared with the golden result in the bundle: msloc_edge/selftest.py.
#pragma once

#include "localizer.h"

namespace msloc {

/// The worst over all classes; see msloc_deviation.
struct Deviation {
  double logit = 0;
  double value = 0;
  double shift = 0;
  double iou = 1;
  int classes_beyond = 0;
};

/// Throws Failure MSLOC_GOLDEN_MISSING, and what Localizer::run throws.
Deviation run_self_test(Localizer& localizer, const Checkpoint& checkpoint);

}  // namespace msloc
