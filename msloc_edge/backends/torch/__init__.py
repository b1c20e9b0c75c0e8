"""PyTorch as a backend: the reference; on CUDA Triton kernels and a CUDA graph."""
