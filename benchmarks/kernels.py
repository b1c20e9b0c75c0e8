"""The kernels beside what one would write without them: time, bytes moved, and the ceilings of the same run.

    python benchmarks/kernels.py [--device cpu|cuda] [--runs 50]

fuse_cams       S = 4 stages of a model at 512 px (128, 64, 32, 16), K = 14 classes, at B = 1 and (on a GPU) B = 64
    eager       interpolate, mul, add (the reference); compile: torch.compile of it; numpy: cv2, what CPU engines use
    triton      the kernel: maps in fp16 or fp32; with peaks: maps in fp32 and their peaks, as the torch backend asks
regions         of these 14 maps at B = 1, each above what 2% of its pixels exceed
    triton      the kernels; maps copied: the maps go to the host, which finds the regions as CPU engines do;
                mask copied: 8 pixels a byte go there, and OpenCV labels them (without the peaks of regions)
window_resize   a film of 3000 x 2500 pixels of 12 bits to 512 x 512
    numpy       OpenCV's table, area average in two passes; triton: the kernel
On a GPU: cold L2, events; in a CUDA graph the cost of one launch among 100, beside that of an empty kernel. GB/s counts
each input and output once. What is copied to the host is timed by the wall clock.
Results: benchmarks/results/kernels.DEVICE.json and .csv; on a GPU also the bars and, where matplotlib is, a picture.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import cv2
import numpy as np
import torch
from machine import RESULTS, environment, save

from msloc_edge._lookup import look_up
from msloc_edge.imaging.geometry import Geometry
from msloc_edge.kernels.fuse_cams.reference import fuse_cams as fuse_eager
from msloc_edge.kernels.window_resize.reference import window_resize as resize_reference
from msloc_edge.maps.fuse import Maps
from msloc_edge.maps.fuse import fuse_cams as fuse_numpy
from msloc_edge.maps.regions import locate

SIDES, SIZE, CLASSES = (128, 64, 32, 16), 512, 14
FILM, BITS = (2500, 3000), 12
ABOVE = 0.98

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
        result["bars"] = bars(rows, result["ceilings_gb_per_s"]["copy"])
        picture(rows, result["ceilings_gb_per_s"])
    path = save(f"kernels.{args.device}", result)
    with (RESULTS / f"kernels.{args.device}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, sorted({name for row in rows for name in row}), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    for row in rows:
        print("  ".join(f"{name} {value}" for name, value in row.items()))
    for bar in result.get("bars", []):
        print("bar:", bar)
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
    from gpu_timing import cold_ms, empty_kernel, graph_ms

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
        cams, relevance = maps_of(batch, torch.float32, "cuda")
        call = partial(fuse_triton, cams, relevance, (SIZE, SIZE), peaks=True)
        row = {
            "operation": "fuse_cams",
            "form": "triton, peaks",
            "batch": batch,
            "dtype": "fp32",
            **cold_ms(call, runs),
        }
        rows.append(row | ({"in_graph_ms": graph_ms(call)["p50"]} if batch == 1 else {}))
    rows += regions_on_gpu(runs)
    one = torch.zeros(1, device="cuda")
    empty = partial(empty_kernel[(1,)], one, num_warps=1)
    rows.append({"operation": "empty", "form": "triton", **cold_ms(empty, runs), "in_graph_ms": graph_ms(empty)["p50"]})
    pixels, table, geometry = film()
    stored, lut = torch.from_numpy(pixels.view(np.int16)).cuda(), torch.from_numpy(table).cuda()
    found = cold_ms(lambda: resize_triton(stored, lut, geometry), runs)
    rows.append(
        {"operation": "window_resize", "form": "triton", "batch": 1, "dtype": "fp32", **found}
        | {"gb_per_s": round((pixels.nbytes + 4 * SIZE * SIZE) / found["p50"] / 1e6, 1)}
    )
    return rows


def regions_on_gpu(runs: int) -> list[Row]:
    """Regions by the kernels, and on the host after a copy."""
    from gpu_timing import cold_ms, graph_ms

    from msloc_edge.kernels.fuse_cams.launch import fuse_cams as fuse_triton
    from msloc_edge.kernels.regions.launch import regions

    cams, relevance = maps_of(1, torch.float32, "cuda")
    maps = fuse_triton(cams, relevance, (SIZE, SIZE)).maps
    assert maps is not None
    thresholds = torch.stack([torch.quantile(m.flatten(), ABOVE) for m in maps[0]])
    mask = fuse_triton(cams, relevance, (SIZE, SIZE), None, thresholds, maps=False, mask=True).mask
    assert mask is not None
    limits = thresholds.tolist()

    def from_maps() -> None:
        locate(Maps(maps[0].cpu().numpy()), limits, (slice(0, SIZE), slice(0, SIZE)))

    def from_mask() -> None:
        for bits in np.unpackbits(mask[0].cpu().numpy(), axis=1, count=SIZE, bitorder="little"):
            cv2.connectedComponentsWithStats(bits, connectivity=8)

    call = partial(regions, maps, thresholds)
    rows = [{"operation": "regions", "form": "triton", **cold_ms(call, runs), "in_graph_ms": graph_ms(call)["p50"]}]
    rows += [
        {"operation": "regions", "form": form, **wall_ms(work, runs)}
        for form, work in (("maps copied", from_maps), ("mask copied", from_mask))
    ]
    return [row | {"batch": 1, "dtype": "fp32"} for row in rows]


def wall_ms(work: Callable[[], Any], runs: int) -> dict[str, float]:
    """Of work that ends on the host."""
    from gpu_timing import quantiles

    times = []
    for _ in range(runs):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        work()
        times.append((time.perf_counter() - begin) * 1e3)
    return quantiles(times)


def bars(rows: list[Row], copy_ceiling: float) -> list[Row]:
    """What the project asks of the kernels, and what came out."""
    fused = {(row["form"], row["batch"], row["dtype"]): row for row in rows if row["operation"] == "fuse_cams"}
    empty = next(row for row in rows if row["operation"] == "empty")
    found = [
        (
            "share of the copy bandwidth, B = 64, fp16",
            fused["triton", 64, "fp16"]["gb_per_s"] / copy_ceiling,
            ">=",
            0.85,
        ),
        (
            "launches of an empty kernel, B = 1, fp16",
            fused["triton", 1, "fp16"]["in_graph_ms"] / empty["in_graph_ms"],
            "<=",
            2,
        ),
    ]
    for batch in (1, 64):
        kernel = fused["triton", batch, "fp16"]["p50"]
        for form, least in (("eager", 10), ("compile", 2)):
            found.append(
                (f"{form} over the kernel, B = {batch}, fp16", fused[form, batch, "fp16"]["p50"] / kernel, ">=", least)
            )
    return [
        {
            "what": what,
            "got": round(value, 3),
            "expected": f"{sign} {limit}",
            "met": value >= limit if sign == ">=" else value <= limit,
        }
        for what, value, sign, limit in found
    ]


def picture(rows: list[Row], ceilings: dict[str, float]) -> None:
    """Bandwidth of each form beside the ceilings."""
    try:
        from matplotlib import pyplot as plt
    except ImportError:
        print("no matplotlib: no picture")
        return
    shown = [row for row in rows if "gb_per_s" in row]
    figure, axes = plt.subplots(figsize=(9, 0.35 * len(shown) + 1), layout="constrained")
    names = [f"{row['operation']} {row['form']} B={row['batch']} {row['dtype']}" for row in shown]
    axes.barh(names, [row["gb_per_s"] for row in shown])
    for name, ceiling in ceilings.items():
        axes.axvline(ceiling, color="black", linewidth=1)
        axes.text(ceiling, -0.8, name, ha="center", fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("GB/s, each input and output counted once; median of cold runs")
    figure.savefig(RESULTS / "kernels.cuda.png", dpi=130)


if __name__ == "__main__":
    main()
