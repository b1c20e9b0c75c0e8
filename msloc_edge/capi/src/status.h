// The stable names of statuses.
#pragma once

#include "msloc_edge.h"

namespace msloc {

/// The name of a status, such as "bundle_hash"; "unknown" for a value that is none.
const char* status_name(msloc_status status) noexcept;

}  // namespace msloc
