// A plan of TensorRT, in Python's engine cache or in a file, and whether it may be handed to TensorRT: deserialising
// runs what a plan says. Files and sidecars are those of msloc_edge/backends/tensorrt, which says more.
#pragma once

#include <string>

#include "bundle.h"

namespace msloc {

/// The target that a plan must have been built for.
struct PlanFor {
  const Bundle& bundle;
  std::string version;    // of TensorRT: major, minor, patch, as in 10.3.0
  int sm;                 // compute capability of the device as one number, 87 for an Orin
  std::string precision;  // fp32, fp16, int8; empty: any
};

/// A checked plan.
struct Plan {
  std::string file;
  std::string data;
  std::string precision;
  bool version_compatible;     // it brings its own runtime
  std::string plugin_library;  // which its graph needs; empty: none
};

/// The plan of a cache that serves single films best: one without heatmaps, which are not used here, then the one with
/// the smallest batch. Throws Failure MSLOC_BACKEND_FAILED with the command that makes one.
Plan find_plan(const std::string& folder, const PlanFor& wanted);

/// The plan in a file with its sidecar FILE.json, as an export writes them. Throws as `find_plan`.
Plan read_plan(const std::string& file, const PlanFor& wanted);

/// The command that builds a plan on this machine.
std::string export_command(const PlanFor& wanted);

}  // namespace msloc
