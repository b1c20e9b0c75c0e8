// p_abnormal by hand, and at the ends of what numbers can be.
#include "profile.h"

#include <cmath>
#include <limits>

#include "check.h"

namespace {

using msloc::Abnormal;

bool near(double a, double b) { return std::abs(a - b) < 1e-12; }

void test_by_hand() {
  // z / T = 1.5, -1.5; softplus = log(1 + e^1.5) = 1.701413277982752, log(1 + e^-1.5) = 0.201413277982752;
  // -1 + 0.5 * 1.701413277982752 + 0.25 * 0.201413277982752 = -0.098940041512936; sigmoid of it = 0.475285147745362
  const float logits[] = {3, -3};
  check(near(Abnormal{{0.5, 0.25}, -1}.probability(logits, 2), 0.475285147745362), "two classes");
  // softplus(0) = log 2, and sigmoid(log 2) = 2 / 3
  const float zero[] = {0};
  check(near(Abnormal{{1}, 0}.probability(zero, 0.5), 2.0 / 3), "a logit of 0");
  // sum_k -log(1 - p_k) is the log of 1 / the probability that nothing is there: with p = 1/2 of each of three, 8
  const float zeros[] = {0, 0, 0};
  check(near(Abnormal{{1, 1, 1}, -std::log(8.0)}.probability(zeros, 1), 0.5), "three even chances");
  check(near(Abnormal{{0, 0}, -1.5}.probability(logits, 1), 1 / (1 + std::exp(1.5))), "the bias alone");
}

void test_ends() {
  constexpr float kHighest = std::numeric_limits<float>::max();
  const float high[] = {kHighest, 0};
  const float low[] = {-kHighest, 0};
  check(Abnormal{{1, 0}, 0}.probability(high, 1) == 1, "softplus does not overflow");
  check(Abnormal{{1, 0}, 0}.probability(low, 1) == 0.5, "and is 0 far below");
  check(Abnormal{{1, 0}, -10}.probability(high, 1e-300) == 1, "nor does the quotient");
  check(near(Abnormal{{0, 1}, 0}.probability(high, 1e-300), 2.0 / 3),
        "a class of no weight adds nothing, however high");
  constexpr double kLargest = kHighest;
  check(Abnormal{{kLargest, kLargest}, -kLargest}.probability(high, 1) == 1 &&
            Abnormal{{0, 0}, -kLargest}.probability(high, 1) == 0,
        "a probability");
}

void test_higher_logits_are_never_less_abnormal() {
  const Abnormal abnormal{{0.3, 1.7}, -4};
  double before = 0;
  for (int i = -400; i <= 400; ++i) {
    const float logits[] = {static_cast<float>(i) / 10, static_cast<float>(i) / 20};
    const double probability = abnormal.probability(logits, 0.6);
    check(probability >= before && probability <= 1, "it rises");
    before = probability;
  }
  check(before > 0.99, "to the top");
}

}  // namespace

int main() {
  test_by_hand();
  test_ends();
  test_higher_logits_are_never_less_abnormal();
  return finish();
}
