"""TensorRT and TensorRT-RTX as backends: sessions, how a plan is built, the cache of plans (docs/tensorrt.md)."""
