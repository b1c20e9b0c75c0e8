// msloc-selftest [BUNDLE [ENGINE [DEVICE]]]: whether this machine computes what the model's maker computed.
//
// Exit status: 0 within the limits, 1 beyond them or not to be run at all, 2 usage.
#include <cstdio>
#include <msloc_edge.hpp>

#include "installed.h"

namespace {

int fail(const msloc_edge::Error& error) {
  std::fprintf(stderr, "%s: %s\n", error.name(), error.sentence.c_str());
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 4) return std::fprintf(stderr, "usage: %s [BUNDLE [ENGINE [DEVICE]]]\n", argv[0]), 2;
  msloc_edge::Options options;
  options.bundle = argc > 1 ? argv[1] : installed_bundle();
  options.engine = argc > 2 ? argv[2] : "";
  options.device = argc > 3 ? argv[3] : "";
  auto localizer = msloc_edge::Localizer::open(options);
  if (!localizer) return fail(localizer.error());
  const auto model = localizer->model();
  if (!model) return fail(model.error());
  std::printf("model   %s %s\nbundle  %s\nengine  %s\n", model->name, model->version, model->sha256, model->engine);

  msloc_deviation worst = MSLOC_DEVIATION_INIT;
  const msloc_status status = msloc_self_test(localizer->get(), &worst);
  if (status != MSLOC_OK && status != MSLOC_SELF_TEST) return fail({status, msloc_last_error(localizer->get())});
  std::printf("logit       %.2g, limit 1e-3\npeak value  %.2g, limit 1e-2\npeak shift  %.2g widths, limit 0.01\n",
              worst.logit, worst.peak_value, worst.peak_shift);
  std::printf("boxes       IoU %.4f, limit 0.95\nfilm        %.2g, limit 1e-3\n", worst.iou, worst.abnormal);
  if (status != MSLOC_OK) return fail({status, msloc_last_error(localizer->get())});
  std::puts("passed");
  return 0;
}
