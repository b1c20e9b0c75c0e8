// The whole test framework: check(a condition, a sentence), and an exit status.
#pragma once

#include <cstdio>
#include <string>

inline int failures = 0;

inline void check(bool holds, const std::string& what) {
  if (holds) return;
  ++failures;
  std::fprintf(stderr, "FAILED: %s\n", what.c_str());
}

inline int finish() {
  if (failures > 0) std::fprintf(stderr, "%d failed\n", failures);
  return failures == 0 ? 0 : 1;
}
