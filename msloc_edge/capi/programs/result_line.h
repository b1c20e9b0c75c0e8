// One line of JSON for one film.
#pragma once

#include <msloc_edge.hpp>
#include <string>
#include <vector>

/// What all films of a run share.
struct Run {
  msloc_model model;
  std::vector<std::vector<float>> relevance;  // [K][S]
};

/// The line of schema "msloc-edge/result/1", as msloc_edge/result.py writes it, without a line end.
///
/// sha256  of the film's file
std::string result_line(const Run& run, const std::string& input, const std::string& sha256,
                        const msloc_edge::Result& result);
