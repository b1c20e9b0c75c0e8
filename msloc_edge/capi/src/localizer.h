// A model in an engine and the way of one film through it: window, letterbox, network, maps, boxes.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <vector>

#include "bundle.h"
#include "engine.h"
#include "film.h"
#include "finding.h"
#include "letterbox.h"
#include "map.h"
#include "pool.h"
#include "regions.h"

namespace msloc {

using Clock = std::chrono::steady_clock;

struct Limits {
  int threads;
  int max_boxes;             // for each class
  std::uint64_t max_pixels;  // of a film
};

/// Runs between stages; throws Failure when a film should not be worked on any longer.
using Checkpoint = std::function<void()>;

/// One film as a whole; msloc_summary is its public form.
struct Summary {
  Geometry geometry{};
  std::uint32_t warnings = 0;
  double abnormal = std::numeric_limits<double>::quiet_NaN();  // p_abnormal; NaN where the bundle has none
  bool passes = true;                                          // the film's gate
  double preprocess_ms = 0;
  double network_ms = 0;
  double localize_ms = 0;
};

/// One film at a time. All memory is made by the constructor, which also runs the network once.
class Localizer {
 public:
  Localizer(Bundle bundle, std::unique_ptr<Engine> engine, const Limits& limits);

  [[nodiscard]] const Bundle& bundle() const noexcept { return bundle_; }
  [[nodiscard]] const Engine& engine() const noexcept { return *engine_; }
  [[nodiscard]] const Limits& limits() const noexcept { return limits_; }

  /// The display transform of the next film, to be filled before `run`: 65536 entries, 2**bits of which count.
  [[nodiscard]] float* table() noexcept { return table_.data(); }

  /// Localizes a film with the display transform in `table`, and with `warnings` of its header. Throws Failure:
  /// MSLOC_CONSTANT, MSLOC_BACKEND_DEVICE, MSLOC_BACKEND_FAILED, the status of a Reason that refuses it, and what the
  /// checkpoint throws; there is no result then.
  void run(const Film& film, std::uint32_t warnings, bool all_classes, const Checkpoint& checkpoint);

  /// Drops the last result.
  void forget() noexcept { has_result_ = false; }
  [[nodiscard]] bool has_result() const noexcept { return has_result_; }
  [[nodiscard]] const Summary& summary() const noexcept { return summary_; }
  [[nodiscard]] const std::vector<Finding>& findings() const noexcept { return findings_; }

  /// The model's input of the last film, [height, width] brightness in [0, 1].
  [[nodiscard]] const float* input() const noexcept { return engine_->input(); }
  /// Writes the map of class k over the whole input [height, width].
  void map(int k, float* out) noexcept;

 private:
  /// Working memory of one thread that localizes classes.
  struct Worker {
    Map map;
    Regions regions;
  };

  void preprocess(const Film& film);
  void look();
  void check_logits() const;
  void check_cams(int k) const;
  void score();
  void localize(bool all_classes, const Checkpoint& checkpoint);

  Bundle bundle_;
  std::unique_ptr<Engine> engine_;
  Limits limits_;
  Pool pool_;
  Letterbox letterbox_;
  std::vector<float> table_;
  std::vector<Worker> workers_;
  std::vector<Finding> findings_;
  std::vector<int> wanted_;
  Summary summary_;
  bool has_result_ = false;
};

}  // namespace msloc
