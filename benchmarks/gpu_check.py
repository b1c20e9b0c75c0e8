"""All that needs a GPU, in one command: every kernel and backend is checked, then measured. Under eight minutes.

    python benchmarks/gpu_check.py [--out DIR]

tests      pytest -m gpu: kernels against their references at real sizes, cubins through the driver, the torch backend
selftest   the golden result, by torch on the GPU
parity     torch on the GPU against onnxruntime on the CPU, over phantoms of every kind: windowed films, logits, peaks
           and boxes that were located on the GPU; in 16 bits the logits alone
plugin     the launch code of the TensorRT plugin, built here, against the formula in double
kernels    benchmarks/kernels.py: against eager and torch.compile, with the ceilings of the same run
whole      benchmarks/whole_image.py: pixels to boxes beside the bare classifier, one at a time and as a stream
bench      msloc-edge bench on the GPU: film file to boxes beside the bare classifier
Works from a checkout, without an installation: the packages are linked into a scratch folder, where every step runs (in
the checkout, Python would take the folder msloc_edge for the whole package). Every step has a time limit, and goes on
after another has failed. DIR (default benchmarks/results) gets gpu_check.json, which names the GPU,
and the steps' own files. Exit status 1 if a step failed.

Not run yet: no GPU was at hand when it was written.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks/results"
NEEDED = {
    **{
        name: name for name in ("torch", "triton", "numpy", "click", "rich", "onnxruntime", "safetensors", "hypothesis")
    },
    **{"cv2": "opencv-python-headless", "PIL": "pillow", "pytest": "pytest"},
}
"""Module -> package of what the steps import."""
PACKAGES = ("kernels", "export", "train")
LIMIT_INPUT, LIMIT_LOGIT, LIMIT_PEAK, LIMIT_IOU = 5e-5, 1e-3, 5e-3, 0.99
LIMIT_LOGIT_16 = {"fp16": 0.05, "bf16": 0.4}
BENCH = ("--generate", "3000x2500x8", "--films", "100", "--seconds", "15", "--compare-classifier")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS)
    own = {"parity": parity, "plugin": plugin}
    parser.add_argument("--only", choices=own, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.only:
        own[args.only]()
        return
    facts, args.out = gpu(), args.out.resolve()
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        links(Path(scratch))
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (scratch, os.environ.get("PYTHONPATH", ""))))
        cli = [sys.executable, "-c", "from msloc_edge.cli import main; main()"]
        bench_file = args.out / "bench.cuda.json"
        steps = {
            "tests": ([sys.executable, "-m", "pytest", "-m", "gpu", "-q", str(ROOT / "tests/kernels")], 150),
            "selftest": ([*cli, "selftest", "--backend", "torch", "--device", "cuda"], 60),
            "parity": ([sys.executable, str(Path(__file__).resolve()), "--only", "parity"], 90),
            "plugin": ([sys.executable, str(Path(__file__).resolve()), "--only", "plugin"], 90),
            "kernels": ([sys.executable, str(ROOT / "benchmarks/kernels.py"), "--device", "cuda"], 100),
            "whole": ([sys.executable, str(ROOT / "benchmarks/whole_image.py")], 100),
            "bench": ([*cli, "bench", "--backend", "torch", "--device", "cuda", *BENCH, "--json", str(bench_file)], 80),
        }
        result = {"gpu": facts, "steps": {name: step(name, *what, Path(scratch)) for name, what in steps.items()}}
    if args.out != RESULTS:
        for made in (*RESULTS.glob("kernels.cuda.*"), *RESULTS.glob("whole_image.json")):
            shutil.copy(made, args.out)
    path = args.out / "gpu_check.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    for name, found in result["steps"].items():
        print(f"{name:10} {'passed' if found['status'] == 0 else 'FAILED'} {found['seconds']:.0f} s")
    print("->", path)
    sys.exit(any(found["status"] for found in result["steps"].values()))


def links(folder: Path) -> None:
    """The package as pyproject.toml maps it: msloc_edge.kernels is kernels/, and so on."""
    package = folder / "msloc_edge"
    package.mkdir()
    for part in (ROOT / "msloc_edge").iterdir():
        (package / part.name).symlink_to(part)
    for name in PACKAGES:
        (package / name).symlink_to(ROOT / name)


def gpu() -> dict[str, Any]:
    if missing := [package for module, package in NEEDED.items() if find_spec(module) is None]:
        sys.exit(f"gpu_check: expected {', '.join(missing)}, found none; install with: pip install {' '.join(missing)}")
    import torch

    if not torch.cuda.is_available():
        sys.exit("gpu_check: expected a CUDA device, found none; run it where nvidia-smi lists one")
    found = torch.cuda.get_device_properties(0)
    return {"name": found.name, "sm": f"{found.major}{found.minor}", "torch": torch.__version__, "time": time.ctime()}


def step(name: str, command: list[str], limit: float, folder: Path) -> dict[str, Any]:
    """Exit status (124: out of time), seconds, and the end of what it printed."""
    print(f"{name} ...", flush=True)
    begin = time.perf_counter()
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=limit)
        status, said = done.returncode, done.stdout + done.stderr
    except subprocess.TimeoutExpired as error:
        status, said = 124, f"{error}"
    print(said[-3000:])
    return {"status": status, "seconds": round(time.perf_counter() - begin, 1), "said": said[-6000:]}


def parity() -> None:
    """Torch on the GPU against onnxruntime on the CPU, all classes. Exits with what is beyond a limit."""
    import numpy as np

    from msloc_edge import Localizer
    from msloc_edge.backends import load_backend
    from msloc_edge.maps.boxes import agreement, array_of
    from msloc_edge.train.phantom import FINDINGS, generate

    films = [generate(3_000_000 + n, 512, kind) for n, kind in enumerate([(), *((f,) for f in FINDINGS)])]
    worst_input, worst_logit, worst_peak, worst_iou = 0.0, 0.0, 0.0, 1.0
    worst_16 = dict.fromkeys(LIMIT_LOGIT_16, 0.0)
    with Localizer(all_classes=True) as cpu, Localizer(backend="torch", device="cuda", all_classes=True) as cuda:
        print(dict(cuda.backend.describe()))
        halves = {kind: load_backend("torch", cpu.bundle, "cuda", kind) for kind in LIMIT_LOGIT_16}
        for film in films:
            prepared = cpu.prepare(film.stored)
            worst_input = max(
                worst_input, float(np.abs(np.asarray(cuda.prepare(film.stored).input) - prepared.input).max())
            )
            on_gpu, on_cpu = (one.backend.run(prepared.batch).logits for one in (cuda, cpu))
            worst_logit = max(worst_logit, float(np.abs(on_gpu - on_cpu).max()))
            for kind, backend in halves.items():
                half = backend.run(prepared.batch).logits
                worst_16[kind] = max(worst_16[kind], float(np.abs(half - on_cpu).max()))
        stored = [film.stored for film in films]
        expected = [cpu.localize(film) for film in stored]
        for results in ([cuda.localize(film) for film in stored], cuda.localize_batch(stored)):
            for ours, theirs in zip(results, expected, strict=True):
                if "fuse" in ours.timing_ms:
                    sys.exit("expected boxes that were located on the GPU, got some from the host")
                for a, b in zip(ours.findings, theirs.findings, strict=True):
                    worst_peak = max(worst_peak, abs(a.peak.value - b.peak.value))
                    worst_iou = min(worst_iou, agreement(array_of(a.boxes), array_of(b.boxes)))
    print(f"{len(films)} films: inputs differ by at most {worst_input:.2e}, logits by {worst_logit:.2e}")
    print(f"peaks differ by at most {worst_peak:.2e}, boxes agree to IoU {worst_iou:.4f}")
    print(f"logits in 16 bits differ by at most {worst_16}")
    if worst_input > LIMIT_INPUT or worst_logit > LIMIT_LOGIT or worst_peak > LIMIT_PEAK or worst_iou < LIMIT_IOU:
        sys.exit(f"expected at most {LIMIT_INPUT}, {LIMIT_LOGIT} and {LIMIT_PEAK}, and at least {LIMIT_IOU}")
    if any(worst_16[kind] > limit for kind, limit in LIMIT_LOGIT_16.items()):
        sys.exit(f"expected at most {LIMIT_LOGIT_16}")


def plugin() -> None:
    """Compiles the kernels and the plugin's launch code for this GPU, without CMake, and runs its check program."""
    import torch

    source = ROOT / "kernels/plugin"
    major, minor = torch.cuda.get_device_capability()
    with tempfile.TemporaryDirectory() as folder:
        kernels, program = Path(folder, "kernels"), Path(folder, "check")
        aot = ["-m", "msloc_edge.kernels.aot", "--operation", "fuse_cams", "--sm", f"{major}{minor}"]
        subprocess.run([sys.executable, *aot, "--out", str(kernels)], check=True)
        subprocess.run([sys.executable, str(source / "embed.py"), str(kernels), folder], check=True)
        parts = [source / f"{name}.cpp" for name in ("camfuse_check", "camfuse_launch", "cuda_driver")]
        parts += [Path(folder, "camfuse_images.S"), Path(folder, "camfuse_images.cpp")]
        build = ["c++", "-std=c++17", "-O2", f"-I{source}", *map(str, parts), "-o", str(program), "-ldl"]
        subprocess.run(build, check=True)
        subprocess.run([str(program)], check=True)


if __name__ == "__main__":
    main()
