"""What a user of `msloc-edge infer` waits for: one film as a whole process, and a folder against the engine alone.

    python benchmarks/infer.py [--folder DIR] [--model cxr-edge] [--runs 9] [--rounds 5]

one film   wall time and peak memory of the whole process, Python's start included; bars: 1.5 s and 400 MB on 2 cores
folder     films a second through Localizer.stream (read, window, letterbox, engine, boxes) over films a second of the
           engine alone on the same inputs, in turns; bar: 0.90. Resident memory at a tenth and at the end of the run.
Without --folder, generated phantoms are written as 8-bit JPEG of 1024 px first.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from itertools import chain, repeat
from pathlib import Path

import cv2
import numpy as np
from machine import environment, save

from msloc_edge.cli.inputs import Search
from msloc_edge.pipeline import Localizer
from msloc_edge.train.phantom import generate

FILMS = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--model", default="cxr-edge")
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.folder or phantoms(Path(scratch))
        films = Search().films_in(folder)[:FILMS]
        result = {
            "what": f"{len(films)} films of {'generated phantoms, JPEG, 1024 px' if not args.folder else folder}",
            "process": one_film(films[0], args.model, args.runs),
            "folder": whole_folder(films, args.model, args.rounds),
            "environment": environment("onnxruntime", "numpy", "opencv-python-headless", "pillow"),
        }
    print(result["process"], result["folder"], "->", save("infer", result), sep="\n")


def phantoms(folder: Path) -> Path:
    for seed in range(FILMS):
        film = np.round(generate(seed, 1024).display() * 255).astype(np.uint8)
        cv2.imwrite(str(folder / f"{seed:03}.jpg"), film, [cv2.IMWRITE_JPEG_QUALITY, 90])
    return folder


def one_film(film: str, model: str, runs: int) -> dict[str, float]:
    """Median seconds and largest peak megabytes of `msloc-edge infer FILM` as a process."""
    command = [str(Path(sys.executable).with_name("msloc-edge")), "infer", film, "--model", model, "-q"]
    seconds, peaks = [], []
    for run in range(runs + 1):
        start = time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            sys.exit(f"{' '.join(command)} failed with {process.returncode}")
        if run:
            seconds.append(time.perf_counter() - start)
            peaks.append(usage.ru_maxrss / 1024)
    return {
        "median_s": round(float(np.median(seconds)), 3),
        "max_s": round(max(seconds), 3),
        "peak_mb": round(max(peaks)),
    }


def whole_folder(films: list[str], model: str, rounds: int) -> dict[str, float]:
    """Films a second of the stream and of the engine alone, and the resident memory early and late."""
    ratios, stream_rate, engine_rate, memory = [], [], [], []
    with Localizer(model) as localizer:
        inputs = [localizer.prepare(film).input[None, None] for film in films]
        engine = localizer.backend
        for number in range(rounds + 1):
            start = time.perf_counter()
            for batch in inputs:
                engine.run(batch)
            alone = len(films) / (time.perf_counter() - start)
            start = time.perf_counter()
            for outcome in localizer.stream(films, localizer.prepare):
                assert outcome.result is not None, outcome.error
            streamed = len(films) / (time.perf_counter() - start)
            if number:
                ratios.append(streamed / alone)
                stream_rate.append(streamed)
                engine_rate.append(alone)
        for number, _ in enumerate(localizer.stream(chain.from_iterable(repeat(films, 16)), localizer.prepare)):
            if number in (len(films), 16 * len(films) - 1):
                memory.append(resident_mb())
    return {
        "stream_films_per_s": round(float(np.median(stream_rate)), 2),
        "engine_films_per_s": round(float(np.median(engine_rate)), 2),
        "ratio_median": round(float(np.median(ratios)), 3),
        "ratio_min": round(min(ratios), 3),
        f"resident_mb_after_{len(films)}": memory[0],
        f"resident_mb_after_{16 * len(films)}": memory[1],
    }


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 1)


if __name__ == "__main__":
    main()
