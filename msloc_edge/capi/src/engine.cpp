#include "engine.h"

#include "failure.h"

namespace msloc {

std::unique_ptr<Engine> make_engine(const std::string& name, const Bundle& bundle, const EngineOptions& options) {
  if (name == "openvino") return make_openvino_engine(bundle, options);
  if (name == "tensorrt") return make_tensorrt_engine(bundle, options);
  throw Failure(MSLOC_BACKEND_UNKNOWN,
                "expected an engine of openvino, tensorrt, got '" + name + "'; choose one of these");
}

}  // namespace msloc
