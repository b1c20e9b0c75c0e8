// operator new of the whole program, counted.
#pragma once

#include <atomic>

extern std::atomic<bool> counting;
extern std::atomic<int> allocations;  // since `counting` was set
