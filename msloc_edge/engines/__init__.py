"""TensorRT engines: how one is built, and the cache that keeps its plan for this machine (docs/tensorrt.md)."""
