"""Timing on a CUDA device: events, a cold L2 cache, many runs; ceilings of the same run. The scripts import it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import triton

WARMUP = 5


@triton.jit
def empty_kernel(nothing):
    """What a launch costs."""


def cold_ms(work: Callable[[], Any], runs: int = 50) -> dict[str, float]:
    """Milliseconds of one call, its inputs not in L2: before each run more bytes than L2 holds are written."""
    flush = torch.empty(2 * torch.cuda.get_device_properties(0).L2_cache_size, dtype=torch.uint8, device="cuda")
    for _ in range(WARMUP):
        work()
    marks = []
    for _ in range(runs):
        flush.zero_()
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        work()
        end.record()
        marks.append((begin, end))
    torch.cuda.synchronize()
    return quantiles([begin.elapsed_time(end) for begin, end in marks])


def graph_ms(work: Callable[[], Any], calls: int = 100, runs: int = 20) -> dict[str, float]:
    """Milliseconds of one call among `calls` in a CUDA graph, with the inputs where they fall: what a launch costs."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARMUP):
            work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(calls):
            work()
    times = []
    for _ in range(runs):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / calls)
    return quantiles(times)


def copy_gb_per_s(megabytes: int = 1024) -> float:
    """Bytes read and written a second by the device's own copy: the ceiling of a kernel that moves memory."""
    source = torch.empty(megabytes << 20, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.numel() / cold_ms(lambda: target.copy_(source), 20)["p50"] / 1e6


def write_gb_per_s(megabytes: int = 1024) -> float:
    """Bytes written a second by a fill."""
    target = torch.empty(megabytes << 20, dtype=torch.uint8, device="cuda")
    return target.numel() / cold_ms(lambda: target.fill_(1), 20)["p50"] / 1e6


def quantiles(times: list[float]) -> dict[str, float]:
    return {f"p{q}": round(float(np.percentile(times, q)), 6) for q in (10, 50, 90)}
