// The input gate: whether a picture is a frontal film of the chest, upright and in its polarity.
//
// The numbers of msloc_edge/imaging/gate.py: a small network over a thumbnail of the film, and limits.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "geometry.h"
#include "msloc_edge.h"

namespace msloc {

/// A reason against a film: its name as in Python, its bit among the warnings, and the status of a refusal for it.
struct Reason {
  const char* name;
  std::uint32_t warning;
  msloc_status status;
};

/// Those that the network may see come first, in the order of its outputs.
inline constexpr std::array<Reason, 8> kReasons{{
    {"rotated", MSLOC_WARNING_ROTATED, MSLOC_ROTATED},
    {"polarity_suspect", MSLOC_WARNING_POLARITY, MSLOC_POLARITY_SUSPECT},
    {"not_chest", MSLOC_WARNING_NOT_CHEST, MSLOC_NOT_CHEST},
    {"not_xray", MSLOC_WARNING_NOT_XRAY, MSLOC_NOT_XRAY},
    {"cut_off", MSLOC_WARNING_CUT_OFF, MSLOC_CUT_OFF},
    {"clipped", MSLOC_WARNING_CLIPPED, MSLOC_CLIPPED},
    {"low_resolution", MSLOC_WARNING_LOW_RESOLUTION, MSLOC_LOW_RESOLUTION},
    {"not_frontal", MSLOC_WARNING_NOT_FRONTAL, MSLOC_NOT_FRONTAL},
}};
inline constexpr std::size_t kSeen = 5;

/// Weights [out, in, 3, 3] or [out, in], and biases [out].
struct GateLayer {
  std::vector<float> weights;
  std::vector<float> bias;
};

class InputGate {
 public:
  static constexpr int kSide = 64;  // of the thumbnail, pixels

  /// convolutions  of stride 2, each with as many inputs as the one before has outputs, the first one
  /// head          1 + kSeen outputs: of a film, and of each reason
  /// thresholds    on the probability of a film, below which the likeliest reason is named
  /// clipped       largest share of black and white pixels
  InputGate(std::vector<GateLayer> convolutions, GateLayer head, std::array<double, kSeen> thresholds, double clipped);

  /// The warnings about a film within the input: MSLOC_WARNING_...
  std::uint32_t judge(const float* input, const Geometry& geometry) noexcept;

 private:
  void make_thumbnail(const float* film, const Geometry& geometry) noexcept;
  std::array<double, 1 + kSeen> probabilities() noexcept;

  std::vector<GateLayer> convolutions_;
  GateLayer head_;
  std::array<double, kSeen> thresholds_;
  double clipped_;
  std::vector<float> cells_;  // what a layer takes, and what it gives
  std::vector<float> next_;
};

}  // namespace msloc
