// Writes a plan as msloc-build does, with Python's cache to read it: msloc_plan_file FOLDER BUNDLE VERSION SM PLAN
//
// PLAN is a file of bytes. Prints "kept" where the cache has the plan, "waiting" where another process has its lock,
// then the plan's name.
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <iterator>

#include "../../msloc_edge/capi/programs/plan_file.h"

int main(int argc, char** argv) {
  if (argc != 6) return 2;
  const std::string folder = argv[1];
  const PlanKey key{argv[2], argv[3], std::atoi(argv[4]), "fp32", "network", 1, 2, 4};
  std::ifstream stream(argv[5], std::ios::binary);
  const PlanLock lock(folder, key, [](const std::string&) { std::cout << "waiting" << std::endl; });
  if (has_plan(folder, key))
    std::cout << "kept\n";
  else
    write_plan(folder, key, {std::istreambuf_iterator<char>(stream), {}}, 1.5);
  std::cout << key.file() << '\n';
  return 0;
}
