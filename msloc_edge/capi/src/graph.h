// What model.onnx may be: one flat graph of standard operators, with all its weights inside.
#pragma once

#include <string_view>

namespace msloc {

/// Looks through an ONNX file as msloc_edge/bundle/graph.py does, which says why. Returns what must not be in it, in
/// words; nullptr where nothing is.
const char* refused_in_graph(std::string_view model) noexcept;

}  // namespace msloc
