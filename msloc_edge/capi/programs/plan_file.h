// A plan as Python's engine cache keeps it (msloc_edge/backends/tensorrt/cache.py, key.py, plan.py).
#pragma once

#include <string>

/// All that a plan of TensorRT depends on.
struct PlanKey {
  std::string bundle;     // sha256 of the bundle's manifest
  std::string version;    // of TensorRT, all its parts
  int sm;                 // compute capability as one number, 87 for an Orin
  std::string precision;  // fp32
  std::string graph;      // network
  int least, best, most;  // batch

  /// The plan's name in the cache.
  [[nodiscard]] std::string file() const;
};

/// The lock of a plan in the cache, which one process at a time has. The system frees it when a process dies.
class PlanLock {
 public:
  /// Waits for it; throws std::system_error where the folder cannot be written.
  ///
  /// waiting  is called once, where another process has it
  PlanLock(const std::string& folder, const PlanKey& key, void (*waiting)(const std::string& file));
  PlanLock(const PlanLock&) = delete;
  PlanLock& operator=(const PlanLock&) = delete;
  PlanLock(PlanLock&&) = delete;
  PlanLock& operator=(PlanLock&&) = delete;
  ~PlanLock();

 private:
  int handle_;
};

/// Whether the cache has a whole plan of this key: what its sidecar says of length and SHA-256 holds.
bool has_plan(const std::string& folder, const PlanKey& key);

/// Writes a plan and its sidecar under their lock: beside, flushed and renamed, the sidecar first, so that a process
/// that is killed leaves no half of one. Throws std::system_error.
void write_plan(const std::string& folder, const PlanKey& key, const std::string& data, double seconds);
