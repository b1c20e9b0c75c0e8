"""The kernels beside what one would write without them: time, bytes moved, and the ceilings of the same run.

    python benchmarks/kernels.py [--device cpu|cuda] [--runs 50]

fuse_cams       S = 4 stages of a model at 512 px (128, 64, 32, 16), K = 14 classes, at B = 1 and (on a GPU) B = 64
    eager       interpolate, mul, add (the reference); compile: torch.compile of it; numpy: cv2, what CPU engines use
    triton      the kernel: maps in fp16 or fp32; and findings alone: peak and mask, without storing maps
window_resize   a film of 3000 x 2500 pixels of 12 bits to 512 x 512
    numpy       OpenCV's table, area average in two passes; triton: the kernel
On a GPU: cold L2, events; in a CUDA graph the cost of one launch among 100. GB/s counts each input and output once.
Results: benchmarks/results/kernels.DEVICE.json and .csv; on a GPU also a picture.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from machine import RESULTS, environment, save

from msloc_edge.fusion import fuse_cams as fuse_numpy
from msloc_edge.geometry import Geometry
from msloc_edge.kernels.fuse_cams.reference import fuse_cams as fuse_eager
from msloc_edge.kernels.window_resize.reference import window_resize as resize_reference
from msloc_edge.lookup import look_up

SIDES, SIZE, CLASSES = (128, 64, 32, 16), 512, 14
FILM, BITS = (2500, 3000), 12

Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=("cpu", "cuda"))
    parser.add_argument("--runs", type=int, default=50)
    args = parser.parse_args()
    rows = on_cpu(args.runs) if args.device == "cpu" else on_gpu(args.runs)
    result: dict[str, Any] = {"rows": rows, "environment": environment("torch", "triton", "opencv-python-headless")}
    if args.device == "cuda":
        from gpu_timing import copy_gb_per_s, write_gb_per_s

        result["gpu"] = torch.cuda.get_device_name()
        result["ceilings_gb_per_s"] = {"copy": round(copy_gb_per_s(), 1), "write": round(write_gb_per_s(), 1)}
    path = save(f"kernels.{args.device}", result)
    with (RESULTS / f"kernels.{args.device}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, sorted({name for row in rows for name in row}), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    for row in rows:
        print("  ".join(f"{name} {value}" for name, value in row.items()))
    print("->", path)


def maps_of(batch: int, dtype: torch.dtype, device: str) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Class maps of four stages, and relevance weights."""
    draw = torch.Generator().manual_seed(0)
    cams = [torch.randn(batch, CLASSES, side, side, generator=draw).to(device, dtype) for side in SIDES]
    relevance = torch.rand(CLASSES, len(SIDES), generator=draw)
    return cams, (relevance / relevance.sum(1, keepdim=True)).to(device)


def fuse_bytes(batch: int, size_in: int, size_out: int) -> int:
    """Each input and output once."""
    return batch * CLASSES * (size_in * sum(side * side for side in SIDES) + size_out * SIZE * SIZE)


def film() -> tuple[np.ndarray, np.ndarray, Geometry]:
    """Stored pixels, table, geometry."""
    draw = np.random.default_rng(0)
    pixels = draw.integers(0, 2**BITS, FILM).astype(np.uint16)
    return pixels, np.linspace(0, 1, 2**BITS, dtype=np.float32), Geometry.fit(FILM, (SIZE, SIZE))


def on_cpu(runs: int) -> list[Row]:
    """What CPU engines use against the reference, in turns."""
    cams, relevance = maps_of(1, torch.float32, "cpu")
    single, weights = [cam[0].numpy() for cam in cams], relevance.numpy()
    pixels, table, geometry = film()
    tensor = torch.from_numpy(pixels.view(np.int16))
    work: dict[tuple[str, str], Callable[[], Any]] = {
        ("fuse_cams", "eager"): lambda: fuse_eager(cams, relevance, (SIZE, SIZE)),
        ("fuse_cams", "numpy"): lambda: fuse_numpy(single, weights, (SIZE, SIZE), range(CLASSES)).dense(),
        ("window_resize", "reference"): lambda: resize_reference(tensor, torch.from_numpy(table), geometry),
        ("window_resize", "numpy"): lambda: geometry.letterbox(look_up(table, pixels)),
    }
    times: dict[tuple[str, str], list[float]] = {key: [] for key in work}
    for run in range(runs + 2):
        for key, call in work.items():
            begin = time.perf_counter()
            call()
            if run >= 2:
                times[key].append((time.perf_counter() - begin) * 1e3)
    return [
        {"operation": operation, "form": form, "batch": 1, "dtype": "fp32"}
        | {f"p{q}": round(float(np.percentile(values, q)), 4) for q in (10, 50, 90)}
        for (operation, form), values in times.items()
    ]


def on_gpu(runs: int) -> list[Row]:
    """Every form at B = 64 and B = 1, cold and in a graph."""
    from gpu_timing import cold_ms, graph_ms

    from msloc_edge.kernels.fuse_cams.launch import fuse_cams as fuse_triton
    from msloc_edge.kernels.window_resize.launch import window_resize as resize_triton

    rows: list[Row] = []
    compiled = torch.compile(fuse_eager, dynamic=False)
    for batch in (1, 64):
        for dtype, name, width in ((torch.float16, "fp16", 2), (torch.float32, "fp32", 4)):
            cams, relevance = maps_of(batch, dtype, "cuda")
            forms: dict[str, Callable[[], Any]] = {
                "eager": partial(fuse_eager, cams, relevance, (SIZE, SIZE)),
                "compile": partial(compiled, cams, relevance, (SIZE, SIZE)),
                "triton": partial(fuse_triton, cams, relevance, (SIZE, SIZE)),
            }
            moved = fuse_bytes(batch, width, width)
            for form, call in forms.items():
                found = cold_ms(call, runs)
                row = {"operation": "fuse_cams", "form": form, "batch": batch, "dtype": name, **found}
                row["gb_per_s"] = round(moved / found["p50"] / 1e6, 1)
                if batch == 1:
                    row["in_graph_ms"] = graph_ms(call)["p50"]
                rows.append(row)
    pixels, table, geometry = film()
    stored, lut = torch.from_numpy(pixels.view(np.int16)).cuda(), torch.from_numpy(table).cuda()
    found = cold_ms(lambda: resize_triton(stored, lut, geometry), runs)
    rows.append(
        {"operation": "window_resize", "form": "triton", "batch": 1, "dtype": "fp32", **found}
        | {"gb_per_s": round((pixels.nbytes + 4 * SIZE * SIZE) / found["p50"] / 1e6, 1)}
    )
    return rows


if __name__ == "__main__":
    main()
