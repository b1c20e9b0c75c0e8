// Where a program of the SDK finds what was installed with it.
#pragma once

#include <string>

/// The bundle that lies in the SDK of the running program.
std::string installed_bundle();
