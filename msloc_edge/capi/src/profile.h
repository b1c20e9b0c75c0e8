// The operating point of a model, by numbers in its manifest: msloc_edge/bundle/profile.py.
//
//     positive(film, k) = p_abnormal >= film  and  p_k >= score[k]  and  the map M_k has a box
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "gate.h"

namespace msloc {

/// A named set of absolute thresholds: of p_abnormal, and for each class of p_k and of the map in logit units.
struct Profile {
  std::string name;
  std::optional<double> film;  // none: every film passes
  std::vector<double> score;   // [K]
  std::vector<double> map;     // [K]
  std::vector<Reason> refuse;  // reasons of the input gate for which a film is not localized, the first that holds
};

/// The probability that a film shows anything:
/// p_abnormal = sigmoid(bias + sum_k weights_k softplus(z_k / temperature)), softplus(x) = log(1 + exp(x)).
struct Abnormal {
  std::vector<double> weights;  // [K], each at least 0
  double bias;

  /// p_abnormal of finite logits [K], in [0, 1].
  [[nodiscard]] double probability(const float* logits, double temperature) const noexcept;
};

/// Limits of the regions of a map that become boxes; those that are smaller or weaker do not.
struct RegionRule {
  double min_area = 16;  // pixels of the model's input: a cell of the finest grid
  double min_share = 0;  // smallest rise of a peak above the threshold, as a share of the highest of those of min_area
};

}  // namespace msloc
