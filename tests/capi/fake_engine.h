// An engine that gives what a test says, so that the library can be tested whole without a network.
#pragma once

#include <functional>
#include <string>
#include <vector>

/// The outputs of every engine made from here on.
struct Script {
  std::vector<float> logits{3, -3};
  std::vector<std::vector<float>> cams{std::vector<float>(std::size_t{2} * 16 * 16),
                                       std::vector<float>(std::size_t{2} * 8 * 8)};
  std::function<void()> during;  // called inside `infer`
};

extern Script script;

/// Writes a bundle of two classes, an input of 64 x 64, stages of 16 x 16 and 8 x 8 into a folder.
///
/// members          more members of the manifest, each with a comma behind it
/// profile_members  likewise, of its default profile
void write_bundle(const std::string& folder, const std::string& members = "", const std::string& profile_members = "");
