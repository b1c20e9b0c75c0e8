#include "engine.h"
#include "failure.h"

namespace msloc {

std::unique_ptr<Engine> make_openvino_engine(const Bundle& /*bundle*/, const EngineOptions& /*options*/) {
  throw Failure(MSLOC_BACKEND_UNKNOWN,
                "openvino: expected a library built with it, got one without; build it with -DMSLOC_WITH_OPENVINO=ON, "
                "or choose another engine");
}

}  // namespace msloc
