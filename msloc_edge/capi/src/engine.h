// The contract of engines: one film in, logits and class maps out.
#pragma once

#include <memory>
#include <string>

#include "bundle.h"
#include "film.h"
#include "regions.h"

namespace msloc {

/// A network, loaded, for one film at a time. Its buffers stay where they are as long as it lives.
class Engine {
 public:
  Engine() = default;
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;
  Engine(Engine&&) = delete;
  Engine& operator=(Engine&&) = delete;
  virtual ~Engine() = default;

  /// [h, w] brightness in [0, 1]: to be filled before `infer`, by `preprocess` or by the caller.
  virtual float* input() noexcept = 0;
  /// Windows a film by its table, and fits it into `input`; false: this engine leaves that to the caller. Throws
  /// Failure MSLOC_BACKEND_FAILED.
  virtual bool preprocess(const Film& /*film*/, const float* /*table*/, const Geometry& /*geometry*/) { return false; }
  /// Throws Failure MSLOC_BACKEND_FAILED.
  virtual void infer() = 0;
  /// [K] of the last `infer`.
  [[nodiscard]] virtual const float* logits() const noexcept = 0;
  /// [K, h_s, w_s] of the last `infer`: the unweighted class maps of one stage.
  [[nodiscard]] virtual const float* cams(int stage) const noexcept = 0;
  /// What the last `infer` found in the map of class k over the place of a film of `preprocess`; null: the caller is to
  /// look itself.
  [[nodiscard]] virtual const Located* located(int /*k*/) const noexcept { return nullptr; }
  /// Name, version, device.
  [[nodiscard]] virtual const std::string& description() const noexcept = 0;
  /// The reason why the caller is to preprocess and to locate on the host, of an engine that could; empty: there is
  /// none.
  [[nodiscard]] virtual std::string host_because() const { return {}; }
};

struct EngineOptions {
  std::string device;        // as the engine names it; empty: the CPU
  std::string cache_folder;  // empty: no cache
  int threads;               // 0: the engine chooses
};

/// Throws Failure: MSLOC_BACKEND_UNKNOWN, _DEVICE, _FAILED.
std::unique_ptr<Engine> make_engine(const std::string& name, const Bundle& bundle, const EngineOptions& options);

/// Throws Failure: MSLOC_BACKEND_DEVICE, _FAILED.
std::unique_ptr<Engine> make_openvino_engine(const Bundle& bundle, const EngineOptions& options);

/// A device is cuda, cuda:N, or one of these with a comma and what to run: a precision (fp32 unless said) of which
/// `cache_folder` has a plan, or the file of a plan. Throws Failure: MSLOC_ARGUMENT, MSLOC_BACKEND_UNKNOWN, _DEVICE,
/// _FAILED.
std::unique_ptr<Engine> make_tensorrt_engine(const Bundle& bundle, const EngineOptions& options);

}  // namespace msloc
