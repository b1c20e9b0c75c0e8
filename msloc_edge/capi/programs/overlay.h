// The film with its findings drawn on it.
#pragma once

#include <msloc_edge.hpp>
#include <string>

/// Writes a PNG of the last film: what the model saw of it, enlarged, with a tint where the map of a positive class
/// reaches its threshold, its boxes, and their labels. An Error is MSLOC_INTERNAL where the file cannot be written.
msloc_edge::Expected<bool> write_overlay(msloc_edge::Localizer& localizer, const msloc_edge::Result& result,
                                         const std::string& file);
