"""All that needs a GPU, in one command: measured, then checked against the CPU. At most eight minutes.

    python benchmarks/gpu_check.py --prepare DIR          without a GPU: Triton's cache, for a device of --sm (90)
    python benchmarks/gpu_check.py --dry-run              without a GPU: the steps, their limits, each command parsed
    python benchmarks/gpu_check.py [--prepared DIR] [--out DIR]

kernels    benchmarks/kernels.py: against eager and torch.compile, with the ceilings of the same run
whole      benchmarks/whole_image.py: pixels to boxes beside the bare classifier, one at a time and as a stream
bench      msloc-edge bench on the GPU: film file to boxes beside the bare classifier
device     benchmarks/predict.py: each step of a film on the device, measured beside what was predicted
selftest   the golden result, by torch on the GPU
parity     torch on the GPU against onnxruntime on the CPU, over phantoms of every kind: windowed films, logits, peaks
           and boxes that were located on the GPU; in 16 bits the logits alone
plugin     the launch code of the TensorRT plugin, built here, against the formula in double
tests      pytest -m gpu, in parallel: kernels against their references at real sizes, cubins through the driver
Works from a checkout, without an installation: the packages are linked into a scratch folder, where every step runs (in
the checkout, Python would take the folder msloc_edge for the whole package). Every step has a time limit, and goes on
after another has failed. DIR (default benchmarks/results) gets gpu_check.json, which names the GPU and is written after
each step, and the steps' own files. Exit status 1 if a step failed.

What was prepared is of use to the version of Triton that made it: with another the kernels are compiled on the device.
Not run yet: no GPU was at hand when it was written.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks/results"
NEEDED = {
    **{
        name: name for name in ("torch", "triton", "numpy", "click", "rich", "onnxruntime", "safetensors", "hypothesis")
    },
    **{"cv2": "opencv-python-headless", "PIL": "pillow", "pytest": "pytest", "xdist": "pytest-xdist"},
}
"""Module -> package of what the steps import."""
PACKAGES = ("kernels", "export", "train")
MAX_SECONDS = 480
"""Of all steps together: of the 15 minutes that a machine is lent for, its start and the copies take some, too."""
SM, PREPARED = 90, "prepared.json"
LIMIT_INPUT, LIMIT_LOGIT, LIMIT_PEAK, LIMIT_IOU = 5e-5, 1e-3, 5e-3, 0.99
LIMIT_LOGIT_16 = {"fp16": 0.05, "bf16": 0.4}
BENCH = ("--generate", "3000x2500x8", "--films", "100", "--seconds", "15", "--cold", "1", "--compare-classifier")
PARSE_ONLY = """
import os, runpy, sys
import argparse, click
parse = argparse.ArgumentParser.parse_args
argparse.ArgumentParser.parse_args = lambda *given: (parse(*given), sys.exit())
click.Command.invoke = lambda *given: None
if sys.argv[1] == "-m":
    sys.argv = sys.argv[2:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
else:
    sys.argv = sys.argv[1:]
    sys.path[0] = os.path.dirname(sys.argv[0])
    runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""A program that parses the arguments of a script, or after -m of a module, and does nothing."""


@dataclass(frozen=True, slots=True)
class Step:
    """A command of Python's, in seconds at most."""

    name: str
    limit: int
    command: list[str]

    def rehearsal(self) -> list[str]:
        """The command that shows, without a GPU, that this one can be understood."""
        if self.command[:2] == ["-m", "pytest"]:
            return [*self.command, "--collect-only"]
        return ["-c", PARSE_ONLY, *self.command]


def steps(out: Path) -> list[Step]:
    """All steps, in order: what is measured comes first."""
    here, scripts = str(Path(__file__).resolve()), ROOT / "benchmarks"
    backend = ["--backend", "torch", "--device", "cuda"]
    tests = [str(ROOT / "tests" / name) for name in ("kernels", "cuda")]
    return [
        Step("kernels", 100, [str(scripts / "kernels.py"), "--device", "cuda"]),
        Step("whole", 90, [str(scripts / "whole_image.py")]),
        Step("bench", 70, ["-m", "msloc_edge", "bench", *backend, *BENCH, "--json", str(out / "bench.cuda.json")]),
        Step("device", 40, [str(scripts / "predict.py"), "--measure", str(out / "bench.device.json")]),
        Step("selftest", 20, ["-m", "msloc_edge", "selftest", *backend]),
        Step("parity", 50, [here, "--only", "parity"]),
        Step("plugin", 40, [here, "--only", "plugin"]),
        Step("tests", 70, ["-m", "pytest", "-m", "gpu", "-q", "-n", "8", *tests]),
    ]


def main() -> None:
    args = parser().parse_args()
    if args.only:
        OWN[args.only]()
        return
    with tempfile.TemporaryDirectory() as scratch:
        links(Path(scratch))
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (scratch, os.environ.get("PYTHONPATH", ""))))
        if args.prepare:
            prepare(args.prepare.resolve(), args.sm, Path(scratch))
        elif args.dry_run:
            rehearse(steps(args.out.resolve()), Path(scratch))
        else:
            check(args.out.resolve(), args.prepared, Path(scratch))


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--out", type=Path, default=RESULTS)
    found.add_argument("--prepare", type=Path, metavar="DIR")
    found.add_argument("--sm", type=int, default=SM, help="compute capability that is prepared for, such as 90")
    found.add_argument("--prepared", type=Path, metavar="DIR")
    found.add_argument("--dry-run", action="store_true")
    found.add_argument("--only", choices=OWN, help=argparse.SUPPRESS)
    return found


def check(out: Path, prepared: Path | None, folder: Path) -> None:
    """Run all steps, and write what is known after each."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / "gpu_check.json"
    result: dict[str, Any] = {"gpu": gpu(), "prepared": use(prepared) if prepared else "nothing", "steps": {}}
    for step in steps(out):
        print(f"{step.name} ... (at most {step.limit} s)", flush=True)
        found = run(step.command, step.limit, folder)
        print(found["said"][-3000:])
        result["steps"][step.name] = found
        path.write_text(json.dumps(result, indent=1) + "\n")
        if out != RESULTS:
            for made in (*RESULTS.glob("kernels.cuda.*"), *RESULTS.glob("whole_image.json")):
                shutil.copy(made, out)
    for name, found in result["steps"].items():
        print(f"{name:10} {'passed' if found['status'] == 0 else 'FAILED'} {found['seconds']:.0f} s")
    print("->", path)
    sys.exit(any(found["status"] for found in result["steps"].values()))


def rehearse(planned: list[Step], folder: Path) -> None:
    """Print the plan, and try to parse each command. Exits with what cannot be parsed."""
    failed = []
    for step in planned:
        words = ["python", *(word.removeprefix(f"{ROOT}/") for word in step.command)]
        found = run(step.rehearsal(), None, folder)
        print(f"{step.limit:4} s  {step.name:9} {' '.join(words)}", flush=True)
        if found["status"]:
            failed.append(f"{step.name}: {found['said'].strip()[-500:]}")
    total = sum(step.limit for step in planned)
    print(f"{total:4} s  in all, of {MAX_SECONDS}")
    if total > MAX_SECONDS:
        failed.append(f"expected limits of {MAX_SECONDS} s in all, got {total}")
    sys.exit("\n".join(failed) or 0)


def prepare(folder: Path, sm: int, scratch: Path) -> None:
    """Fill a folder with Triton's cache for a device that is not here."""
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["TRITON_CACHE_DIR"] = str(folder)
    fill = f"from msloc_edge.kernels.ahead import fill_cache; fill_cache({sm})"
    found = run(["-c", fill], None, scratch)
    if found["status"]:
        sys.exit(found["said"])
    facts = {"sm": sm, "triton": metadata.version("triton")}
    (folder / PREPARED).write_text(json.dumps(facts) + "\n")
    kernels = len(list(folder.glob("*/*.cubin")))
    print(f"{folder}: {kernels} kernels for sm_{sm} by Triton {facts['triton']} in {found['seconds']:.0f} s")


def use(folder: Path) -> str:
    """Let Triton begin with what was prepared; says what that is."""
    facts = json.loads((folder / PREPARED).read_text())
    here = metadata.version("triton")
    if facts["triton"] != here:
        return f"nothing: {folder} is of Triton {facts['triton']}, this is {here}"
    os.environ["TRITON_CACHE_DIR"] = str(folder.resolve())
    return f"kernels for sm_{facts['sm']} of Triton {here}"


def run(command: list[str], limit: float | None, folder: Path) -> dict[str, Any]:
    """Exit status (124: out of time), seconds, and the end of what it printed. With it end the processes it started."""
    begin = time.perf_counter()
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(
            [sys.executable, *command], cwd=folder, stdout=said, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            status = process.wait(limit)
        except subprocess.TimeoutExpired:
            status = 124
        finally:
            end(process)
        said.seek(0)
        return {"status": status, "seconds": round(time.perf_counter() - begin, 1), "said": said.read()[-6000:]}


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process and all of its session, such as the workers of pytest."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


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
    facts = {name: metadata.version(name) for name in ("torch", "triton", "onnxruntime")}
    return {"name": found.name, "sm": f"{found.major}{found.minor}", **facts, "time": time.ctime()}


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


OWN = {"parity": parity, "plugin": plugin}
"""Steps of this file, each in a process of its own."""

if __name__ == "__main__":
    main()
