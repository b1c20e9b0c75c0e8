"""The kernels compiled ahead of time, without a GPU: PTX, cubins, and the facts that a launch needs (README.md)."""
