"""On a GPU: from a film's pixels to boxes on the host, beside the bare classifier with its input already on the GPU.

    python benchmarks/whole_image.py [--runs 200] [--size 512]

whole       Localizer.localize of raw pixels (3000 x 2500, 12 bits) in page-locked memory: copied, windowed, through the
            network, and the maps of all classes, their peaks and regions; one film at a time
stream      the same films by Localizer.stream: the time from film to film, while copies overlap the film before
classifier  a CUDA graph of the same backbone, average pooling and a linear layer, replayed on what lies on the GPU
In turns; wall clock. Both backbones with weights that are drawn, not trained: time does not depend on them. Each map's
threshold is what 2% of its pixels exceed on the first film, so that there are regions.
Results: benchmarks/results/whole_image.json. Not run yet: no GPU was at hand when it was written.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gpu_timing import quantiles
from machine import environment, save
from safetensors.torch import save_file

from msloc_edge import Localizer
from msloc_edge.backends import load_backend
from msloc_edge.backends.torch.backend import TorchBackend
from msloc_edge.bench.classifier import without_maps
from msloc_edge.bundle import MANIFEST, ONNX, WEIGHTS, Bundle, sha256_file
from msloc_edge.model import ModelConfig, build
from msloc_edge.train.phantom import generate
from msloc_edge.types import Frame

FILM, BITS = (2500, 3000), 12
ABOVE = 0.98
WARMUP = 20
BAR = 1.15


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--size", type=int, default=512)
    args = parser.parse_args()
    frames = [pinned(seed) for seed in range(4)]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for backbone in ("densenet121", "edge"):
            bundle = drawn_bundle(Path(folder, backbone), backbone, args.size)
            rows += [measure(bundle, backbone, precision, frames, args.runs) for precision in ("fp16", "fp32")]
    result = {"what": f"{FILM} of {BITS} bits to boxes of all classes, {args.size} px", "rows": rows, "bar": BAR}
    path = save(
        "whole_image", result | {"gpu": torch.cuda.get_device_name(), "environment": environment("torch", "triton")}
    )
    for row in rows:
        print(row)
    print("->", path)


def pinned(seed: int) -> Frame:
    """A phantom in page-locked memory."""
    stored = np.round(generate(seed, FILM).display() * (2**BITS - 1)).astype(np.int16)
    pixels = torch.from_numpy(stored).pin_memory().numpy().view(np.uint16)
    return Frame(pixels, np.linspace(0, 1, 2**BITS, dtype=np.float32))


def drawn_bundle(folder: Path, backbone: str, size: int) -> Bundle:
    """The shipped bundle with another network in it, for the torch backend alone: its ONNX file stays as it is."""
    shipped = Bundle.open()
    torch.manual_seed(0)
    net = build(ModelConfig(shipped.classes, backbone, size))
    folder.mkdir()
    shutil.copy(shipped.onnx, folder / ONNX)
    save_file({name: tensor.contiguous() for name, tensor in net.state_dict().items()}, folder / WEIGHTS)
    manifest = {
        **shipped.manifest,
        "architecture": net.config.to_dict(),
        "input": {**shipped.manifest["input"], "height": size, "width": size},
        "stages": [{"height": size // stride, "width": size // stride, "stride": stride} for stride in net.strides],
        "relevance": net.head.relevance.tolist(),
        "files": {name: sha256_file(folder / name) for name in (ONNX, WEIGHTS)},
    }
    (folder / MANIFEST).write_text(json.dumps(manifest))
    return Bundle.open(folder)


def measure(bundle: Bundle, backbone: str, precision: str, frames: list[Frame], runs: int) -> dict[str, Any]:
    """Quantiles of milliseconds, and ratios of medians."""
    classifier = without_maps(load_backend("torch", bundle, "cuda", precision))
    assert isinstance(classifier, TorchBackend)
    assert classifier._cuda is not None
    classifier.run(np.zeros((1, 1, *bundle.input_size), np.float32))
    replay = classifier._cuda._slots[1, False].replay
    with Localizer(bundle.path, "torch", "cuda", all_classes=True, precision=precision) as localizer:
        localizer.profile = replace(localizer.profile, map=thresholds(localizer, frames[0]))
        turns: dict[str, tuple[Callable[[int], object], list[float]]] = {
            "whole": (lambda at: localizer.localize(frames[at % len(frames)]), []),
            "classifier": (lambda _: (replay(), torch.cuda.synchronize()), []),
        }
        for at in range(WARMUP + runs):
            for work, times in turns.values():
                begin = time.perf_counter()
                work(at)
                times.append((time.perf_counter() - begin) * 1e3)
        found = localizer.localize(frames[0])
        outcomes = localizer.stream((frames[at % len(frames)] for at in range(WARMUP + runs)), workers=2)
        ends = [time.perf_counter() for _ in outcomes]
    row: dict[str, Any] = {"backbone": backbone, "precision": precision}
    row |= {name: quantiles(times[WARMUP:]) for name, (_, times) in turns.items()}
    row["stream"] = quantiles((np.diff(ends[WARMUP:]) * 1e3).tolist())
    row["regions"] = sum(len(finding.boxes) for finding in found.findings)
    row["steps"] = {name: round(ms, 4) for name, ms in found.timing_ms.items()}
    row["eager_because"] = localizer.backend.describe().get("eager_because")
    return row | {
        f"{name}_ratio": round(row[name]["p50"] / row["classifier"]["p50"], 4) for name in ("whole", "stream")
    }


def thresholds(localizer: Localizer, frame: Frame) -> tuple[float, ...]:
    """What 2% of each map's pixels exceed."""
    return tuple(float(np.quantile(shown, ABOVE)) for shown in localizer.localize(frame).maps.values())


if __name__ == "__main__":
    main()
