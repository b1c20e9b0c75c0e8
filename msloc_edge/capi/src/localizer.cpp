#include "localizer.h"

#include <algorithm>
#include <cmath>

#include "failure.h"

namespace msloc {
namespace {

/// Milliseconds between laps.
class Stopwatch {
 public:
  double lap() noexcept {
    const Clock::time_point now = Clock::now();
    const std::chrono::duration<double, std::milli> passed = now - last_;
    last_ = now;
    return passed.count();
  }

 private:
  Clock::time_point last_ = Clock::now();
};

bool is_finite(float value) { return std::isfinite(value); }

}  // namespace

Localizer::Localizer(Bundle bundle, std::unique_ptr<Engine> engine, const Limits& limits)
    : bundle_(std::move(bundle)),
      engine_(std::move(engine)),
      limits_(limits),
      pool_(limits.threads),
      letterbox_(bundle_.input, limits.threads),
      table_(std::size_t{1} << 16),
      findings_(bundle_.classes.size()) {
  const Size input = bundle_.input;
  const auto pixels = static_cast<std::size_t>(input.width) * static_cast<std::size_t>(input.height);
  workers_.reserve(static_cast<std::size_t>(limits.threads));
  for (int worker = 0; worker < limits.threads; ++worker) workers_.push_back({Map(bundle_), Regions(input)});
  for (Finding& finding : findings_) finding.boxes.reserve(static_cast<std::size_t>(limits.max_boxes));
  wanted_.reserve(findings_.size());
  const std::vector<std::uint8_t> black(pixels);  // so is the table
  summary_.geometry = Geometry::fit(input, input);
  preprocess({black.data(), input.width, input, false, 8});
  engine_->infer();
  check_logits();
  for (int k = 0; k < bundle_.class_count(); ++k) check_cams(k);
}

void Localizer::run(const Film& film, std::uint32_t warnings, bool all_classes, const Checkpoint& checkpoint) {
  has_result_ = false;
  Stopwatch watch;
  summary_ = {};
  summary_.warnings = warnings;
  summary_.geometry = Geometry::fit(film.size, bundle_.input);
  preprocess(film);
  look();
  summary_.preprocess_ms = watch.lap();
  checkpoint();
  engine_->infer();
  summary_.network_ms = watch.lap();
  checkpoint();
  score();
  localize(all_classes, checkpoint);
  summary_.localize_ms = watch.lap();
  has_result_ = true;
}

void Localizer::map(int k, float* out) noexcept {
  const Size input = bundle_.input;
  Map& map = workers_.front().map;
  map.set(*engine_, k, {0, 0, input.width, input.height});
  for (int y = 0; y < input.height; ++y) out = std::copy_n(map.row(y), input.width, out);
}

void Localizer::preprocess(const Film& film) {
  if (engine_->preprocess(film, table_.data(), summary_.geometry)) return;
  if (film.on_device) {
    const std::string because = engine_->host_because();
    throw Failure(MSLOC_BACKEND_DEVICE, "expected samples in data, as " + engine_->description() +
                                            " has no films on the device, got device_data; copy them to the host" +
                                            (because.empty() ? "" : ", or: " + because));
  }
  letterbox_.run(film, table_.data(), summary_.geometry, pool_, engine_->input());
}

/// Refuses what is no film for this model, and notes what is unusual.
void Localizer::look() {
  const Look look = look_at(engine_->input(), summary_.geometry);
  if (look.constant)
    throw Failure(MSLOC_CONSTANT,
                  "expected a film, got one brightness for every pixel; look at its pixels and its window");
  if (!bundle_.input_gate) {
    if (look.inverted) summary_.warnings |= MSLOC_WARNING_POLARITY;
    return;
  }
  summary_.warnings |= bundle_.input_gate->judge(engine_->input(), summary_.geometry);
  for (const Reason& reason : bundle_.profile.refuse)
    if ((summary_.warnings & reason.warning) != 0)
      throw Failure(reason.status, std::string("expected an upright frontal film of the chest, got one that is ") +
                                       reason.name + "; look at the film and at its header");
}

/// Refuses infinity and NaN of the network, which would compare as below every threshold: a normal film.
void Localizer::check_logits() const {
  const float* const logits = engine_->logits();
  if (!std::all_of(logits, logits + findings_.size(), is_finite))
    throw Failure(MSLOC_BACKEND_FAILED, "expected finite logits, got others; stop using this localizer");
}

void Localizer::check_cams(int k) const {
  for (int stage = 0; stage < bundle_.stage_count(); ++stage) {
    const Stage& grid = bundle_.stages[static_cast<std::size_t>(stage)];
    const auto cells = static_cast<std::ptrdiff_t>(grid.width) * grid.height;
    const float* const cams = engine_->cams(stage) + k * cells;
    if (!std::all_of(cams, cams + cells, is_finite))
      throw Failure(MSLOC_BACKEND_FAILED, "expected finite maps, got others; stop using this localizer");
  }
}

void Localizer::score() {
  check_logits();
  for (std::size_t k = 0; k < findings_.size(); ++k) {
    Finding& finding = findings_[k];
    finding.logit = static_cast<double>(engine_->logits()[k]);
    finding.score = 1 / (1 + std::exp(-finding.logit / bundle_.temperature));
    finding.positive = false;
    finding.localized = false;
    finding.peak = {};
    finding.peak_at = {};
    finding.boxes_found = 0;
    finding.boxes.clear();
  }
  if (bundle_.abnormal) summary_.abnormal = bundle_.abnormal->probability(engine_->logits(), bundle_.temperature);
  const Profile& profile = bundle_.profile;
  summary_.passes = !profile.film || summary_.abnormal >= *profile.film;
  for (std::size_t k = 0; k < findings_.size(); ++k)
    findings_[k].candidate = summary_.passes && findings_[k].score >= profile.score[k];
}

void Localizer::localize(bool all_classes, const Checkpoint& checkpoint) {
  wanted_.clear();
  for (int k = 0; k < bundle_.class_count(); ++k)
    if (all_classes || findings_[static_cast<std::size_t>(k)].candidate) wanted_.push_back(k);
  for (const int k : wanted_) check_cams(k);
  const Geometry& geometry = summary_.geometry;
  const Patch place{geometry.left, geometry.top, geometry.width, geometry.height};
  std::size_t group = 0;
  auto work = [&](int worker, int job) noexcept {
    Worker& own = workers_[static_cast<std::size_t>(worker)];
    const int k = wanted_[group + static_cast<std::size_t>(job)];
    const double threshold = bundle_.profile.map[static_cast<std::size_t>(k)];
    Finding& finding = findings_[static_cast<std::size_t>(k)];
    if (const Located* found = engine_->located(k)) {
      fill_finding(found->peak, found->regions, threshold, bundle_.regions, geometry, finding);
    } else {
      own.map.set(*engine_, k, place);
      localize_class(own.map, threshold, bundle_.regions, geometry, own.regions, finding);
    }
    finding.positive = finding.candidate && finding.boxes_found > 0;
  };
  for (; group < wanted_.size(); group += static_cast<std::size_t>(pool_.size())) {
    pool_.run(static_cast<int>(std::min(wanted_.size() - group, static_cast<std::size_t>(pool_.size()))), work);
    checkpoint();
  }
}

}  // namespace msloc
