#include "profile.h"

#include <algorithm>
#include <cmath>

namespace msloc {
namespace {

/// log(1 + exp(x)) without overflow.
double softplus(double x) noexcept { return std::max(x, 0.0) + std::log1p(std::exp(-std::abs(x))); }

}  // namespace

double Abnormal::probability(const float* logits, double temperature) const noexcept {
  double evidence = bias;
  for (std::size_t k = 0; k < weights.size(); ++k)
    if (weights[k] > 0)  // 0 times infinity, of a tiny temperature, is no number
      evidence += weights[k] * softplus(static_cast<double>(logits[k]) / temperature);
  return 1 / (1 + std::exp(-evidence));
}

}  // namespace msloc
