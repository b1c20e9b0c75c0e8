"""Arithmetic in which a network is trained, and whether it repeats to the bit."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from msloc_edge.backends.torch.precision import DTYPES
from msloc_edge.errors import TrainError


def autocast_type(precision: str, device: torch.device) -> torch.dtype:
    """Choose the type that matrix products are computed in; "auto" is bf16 on CUDA where it has that, else fp32.

    Raises TrainError for fp16 on a CPU, and for bf16 on a GPU without it.
    """
    cuda = device.type == "cuda"
    bf16 = not cuda or torch.cuda.is_bf16_supported(including_emulation=False)
    if precision == "auto":
        return torch.bfloat16 if cuda and bf16 else torch.float32
    if (precision == "fp16" and not cuda) or (precision == "bf16" and not bf16):
        raise TrainError(
            "option_invalid", f"{precision} is not for this {device.type} device; choose another precision"
        )
    return DTYPES[precision]


@contextmanager
def reproducible(deterministic: bool) -> Iterator[None]:
    """Use deterministic algorithms only, or the fastest ones, in the block."""
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS repeats itself only with a fixed workspace
    torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.benchmark = not deterministic
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.backends.cudnn.benchmark = before[1]
