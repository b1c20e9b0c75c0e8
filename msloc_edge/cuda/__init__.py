"""The CUDA driver without torch: providers, streams, graphs, compiled kernels."""
