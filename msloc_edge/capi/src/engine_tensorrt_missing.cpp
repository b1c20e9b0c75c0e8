#include "engine.h"
#include "failure.h"

namespace msloc {

std::unique_ptr<Engine> make_tensorrt_engine(const Bundle& /*bundle*/, const EngineOptions& /*options*/) {
  throw Failure(MSLOC_BACKEND_UNKNOWN,
                "tensorrt: expected a library built with it, got one without; build it with -DTENSORRT_ROOT, or choose "
                "another engine");
}

}  // namespace msloc
