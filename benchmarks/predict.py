"""Reckons each step of a film on the device, before any device has run it: bytes, instructions, the bound they set.

    python -m msloc_edge.kernels.aot --out build/aot --sm 87,89,90
    python benchmarks/predict.py build/aot                   needs no GPU -> benchmarks/results/predicted.json
    python benchmarks/predict.py --beside bench.json         what `bench --scope device` measured, beside it
    python benchmarks/predict.py --measure bench.json        the same, measured now: by TensorRT, or torch

One film, stored pixels on the host to peaks and regions on the host, fp32 without TF32. Of each step, by the names of
`timing_ms`:

    bound_ms = max(link bytes / link, memory bytes / memory, instructions / issue, operations / arithmetic)
    gaps_ms  = kernels * GAP_US

link bytes    that cross PCIe; on an integrated GPU, where they are copied, they are read and written in its memory
memory bytes  every array written once and read once, also between two layers, where a large L2 may hold it
instructions  of the PTX that ships, counted by the interpreter (tools/ptx_report.py), times pixels
operations    two for each multiply-add of the network's convolutions and matrices
Rates are the published ones, which no kernel reaches. GAP_US, between two kernels of a CUDA graph, is an assumption.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from machine import RESULTS, environment, save

from msloc_edge.backends.base import STEPS
from msloc_edge.backends.found import MAX_REGIONS
from msloc_edge.backends.tensorrt.locate import COLUMNS
from msloc_edge.bundle import Bundle
from msloc_edge.cuda.compiled import read_index
from msloc_edge.cuda.driver import Device as Cuda

if TYPE_CHECKING:
    import onnx  # measuring does without it

INTERPRETER = Path(__file__).parents[1] / "tests" / "ptx"

FILM, BITS = (3000, 2500), 8
"""The film of benchmarks/gpu_check.py, width and height, with its depth."""

GAP_US = 2.0
FORMS = {
    "window": ("window_resize.u8-shrink",),
    "locate": ("fuse_cams.located", "fuse_cams.peaks", "regions.runs", "regions.regions"),
}
"""Step -> its kernels, in order."""

PARTS = 64
"""Keys of a map in the interpreter's launch of fuse_cams.peaks."""


@dataclass(frozen=True, slots=True)
class Device:
    """Published figures of a device.

    sms, ghz   multiprocessors, highest clock: each issues 4 instructions of 32 threads a clock
    memory_gb  bandwidth, GB/s
    link_gb    PCIe one way, GB/s; None: an integrated GPU, whose copies are within its memory
    """

    name: str
    sm: int
    sms: int
    ghz: float
    memory_gb: float
    link_gb: float | None
    source: str

    @property
    def issue(self) -> float:
        """Instructions of threads a second; as many multiply-adds in fp32."""
        return self.sms * 4 * 32 * self.ghz * 1e9


DEVICES = (
    Device(
        "Jetson Orin Nano Super 8 GB", 87, 8, 1.02, 102, None, "NVIDIA Jetson Orin Nano Super Developer Kit datasheet"
    ),
    Device("GeForce RTX 4090", 89, 128, 2.52, 1008, 31.5, "NVIDIA Ada GPU architecture whitepaper; PCIe 4.0 x16"),
    Device("H200 SXM", 90, 132, 1.98, 4800, 63.0, "NVIDIA H200 datasheet, Hopper whitepaper; PCIe 5.0 x16"),
)


@dataclass(frozen=True, slots=True)
class Work:
    """What a step has to do."""

    link_bytes: float = 0
    memory_bytes: float = 0
    instructions: float = 0
    operations: float = 0
    kernels: int = 0

    def on(self, device: Device) -> dict[str, float]:
        """Milliseconds at the device's published rates, and those of the gaps between its kernels."""
        memory = self.memory_bytes + (0 if device.link_gb else 2 * self.link_bytes)
        seconds = max(
            self.link_bytes / (device.link_gb * 1e9) if device.link_gb else 0,
            memory / (device.memory_gb * 1e9),
            self.instructions / device.issue,
            self.operations / (2 * device.issue),
        )
        return {"bound_ms": round(1e3 * seconds, 4), "gaps_ms": round(1e-3 * GAP_US * self.kernels, 4)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, help="kernels.json and the PTX that it names")
    parser.add_argument("--beside", type=Path, metavar="BENCH", help="a --json of bench with the scope device")
    parser.add_argument("--measure", type=Path, metavar="BENCH", help="file for the --json of bench")
    args = parser.parse_args()
    if args.measure:
        measure(args.measure)
        args.beside = args.measure
    if args.beside:
        try:
            print(beside(json.loads(args.beside.read_text()), json.loads((RESULTS / "predicted.json").read_text())))
        except (OSError, ValueError, KeyError) as error:
            parser.error(f"--beside: expected a --json of `msloc-edge bench --scope device`, got {error!r}")
        return
    if not args.folder:
        parser.error("expected the folder of the kernels, --beside or --measure")
    result = predicted(Bundle.open(), args.folder)
    print(table(result))
    print("->", save("predicted", result | {"environment": environment("onnx")}))


def predicted(bundle: Bundle, folder: Path) -> dict[str, Any]:
    """Reckon the steps for every device: what each has to do, and the milliseconds of it."""
    rows = []
    for device in DEVICES:
        works = steps(bundle, counts(folder, device.sm))
        row = {name: asdict(work) | work.on(device) for name, work in works.items()}
        rows.append({"device": asdict(device), "steps": {name: row[name] for name in STEPS}})
    what = {"film": f"{FILM[0]} x {FILM[1]}, {BITS} bits", "model": asdict(bundle.id), "precision": "fp32"}
    return what | {"gap_us": GAP_US, "devices": rows}


def steps(bundle: Bundle, count: dict[str, float]) -> dict[str, Work]:
    """Work of each step for one film, from the shapes that travel."""
    image, classes, film = prod(bundle.input_size), len(bundle.classes), prod(FILM)
    cams = sum(classes * stage.height * stage.width for stage in bundle.stages)
    maps, stored = classes * image, film * BITS // 8
    found = classes * (1 + 2 + 1 + MAX_REGIONS * COLUMNS)
    operations, tensors, layers = network(bundle)
    located, peaks, runs, regions = (count[name] for name in FORMS["locate"])
    return {
        "copy_in": Work(link_bytes=stored + 4 * 2**BITS, memory_bytes=2 * 4 * image),
        "window": Work(memory_bytes=stored + 4 * image, instructions=count[FORMS["window"][0]] * film, kernels=1),
        "network": Work(memory_bytes=4 * tensors, operations=operations, kernels=layers),
        "locate": Work(
            memory_bytes=4 * (cams + 2 * maps + found),
            instructions=(located + runs + regions) * maps + peaks * PARTS * classes,
            kernels=len(FORMS["locate"]),
        ),
        "copy_out": Work(link_bytes=4 * (classes + cams + found + image)),
    }


def counts(folder: Path, sm: int) -> dict[str, float]:
    """Count the instructions of each kernel by the pixel (by the key, of peaks), at the sizes of docs/gpu.md."""
    sys.path.insert(0, str(INTERPRETER))
    from shipped import of_compiled
    from shipped.figures import measured

    kernels = [kernel for kernel in read_index(folder) if kernel.sm == sm and not kernel.portable]
    forms = {f"{k.operation}.{k.variant}": of_compiled(folder, k) for k in kernels if k.dtype == "fp32"}
    found = {}
    for name in (name for names in FORMS.values() for name in names):
        operation = name.split(".")[0]
        partners = {key.split(".")[1]: form for key, form in forms.items() if key.startswith(f"{operation}.")}
        outcomes = measured(forms[name], partners)
        found[name] = min(outcome.executed.instructions / outcome.pixels for outcome in outcomes.values())
    return found


def network(bundle: Bundle) -> tuple[float, float, int]:
    """Operations of the graph for one film, numbers that it reads and writes, and its layers.

    An activation behind a layer is taken as part of it, as TensorRT fuses them; every other tensor is written and read.
    """
    import onnx

    graph = onnx.shape_inference.infer_shapes(onnx.load_model(bundle.onnx)).graph
    shapes = {value.name: _shape(value) for value in (*graph.input, *graph.value_info, *graph.output)}
    weights = {weight.name: tuple(weight.dims) for weight in graph.initializer}
    operations, numbers, layers = 0.0, float(sum(map(prod, weights.values()))), 0
    for node in graph.node:
        if node.op_type in FUSED:
            continue
        outputs = sum(prod(shapes.get(name, ())) for name in node.output)
        numbers += outputs + sum(prod(shapes[name]) for name in node.input if name in shapes)
        layers += 1
        if node.op_type in ("Conv", "Gemm"):
            kernel = weights[node.input[1]]
            operations += 2 * outputs * prod(kernel[1:]) if node.op_type == "Conv" else 2 * prod(kernel)
    return operations, numbers, layers


FUSED = (
    *("Relu", "Clip", "HardSwish", "HardSigmoid", "Sigmoid", "Mul", "Add", "BatchNormalization"),
    *("Identity", "Flatten", "Reshape", "Squeeze", "Unsqueeze", "Constant", "Shape", "Gather"),
)
"""Operators that need no pass over memory of their own."""


def _shape(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    """Sides of a tensor of one film: one that is free is the batch."""
    return tuple(side.dim_value or 1 for side in value.type.tensor_type.shape.dim)


def table(result: dict[str, Any]) -> str:
    """Format bounds and gaps as docs/gpu.md has them."""
    names = [row["device"]["name"] for row in result["devices"]]
    lines = [f"| ms | {' | '.join(names)} |", f"| --- |{' --- |' * len(names)}"]
    for step in STEPS:
        cells = [words(row["steps"][step]) for row in result["devices"]]
        lines.append(f"| `{step}` | {' | '.join(cells)} |")
    totals = [sum(s["bound_ms"] + s["gaps_ms"] for s in row["steps"].values()) for row in result["devices"]]
    return "\n".join([*lines, f"| all | {' | '.join(f'{total:.3f}' for total in totals)} |"])


def words(step: dict[str, float]) -> str:
    """Format the bound of a step, and its gaps."""
    return f"{step['bound_ms']:.3f} + {step['gaps_ms']:.3f}"


def measure(file: Path) -> None:
    """Run `bench --scope device` on the predicted film into a file; TensorRT gets this device's kernels first."""
    film = f"{FILM[0]}x{FILM[1]}x{BITS}"
    what = f"--scope device --generate {film} --films 100 --seconds 10 --cold 0 --json {file} -q".split()
    with tempfile.TemporaryDirectory() as folder:
        backend = "tensorrt" if find_spec("tensorrt") else "torch"
        if backend == "tensorrt":
            aot = ["-m", "msloc_edge.kernels.aot", "--sm", str(Cuda().sm), "--out", folder]
            subprocess.run([sys.executable, *aot], check=True, stderr=subprocess.DEVNULL)
        command = [sys.executable, "-m", "msloc_edge", "bench", "--backend", backend, "--device", "cuda", *what]
        subprocess.run(command, check=True, env=os.environ | {"MSLOC_KERNELS": folder})


def beside(bench: dict[str, Any], result: dict[str, Any]) -> str:
    """Set medians that were measured beside every device's prediction, by step."""
    rows = {(row["scenario"], row["scope"]): row for row in bench["measurements"]}
    row = rows["single-stream", "device"]
    gpus = ", ".join(gpu["name"] for gpu in bench["environment"]["gpus"]) or "no GPU that nvidia-smi names"
    lines = [f"measured on {gpus}, {bench['films']['what']}; predicted: bound + gaps, ms"]
    for step in STEPS:
        seen = row["stages_ms"].get(step)
        told = f"{seen['p50']['value']:.3f}" if seen else "not told"
        expected = [(one["device"]["name"], one["steps"][step]) for one in result["devices"]]
        told_before = "; ".join(f"{name} {words(ms)}" for name, ms in expected)
        lines.append(f"{step:9} {told:>9}   {told_before}")
    lines.append(f"{'whole':9} {np.median(row['samples_ms']):9.3f}   by the host's clock")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
