"""What a user of `msloc-edge infer` waits for: one film as a whole process, and a folder against the engine alone.

    python benchmarks/infer.py [--folder DIR] [--model cxr-edge] [--runs 9] [--rounds 9]

one film   wall time and peak memory of the whole process, Python's start included; bars: 1.5 s and 400 MB on 2 cores
folder     films a second and CPU milliseconds a film, in turns: the engine alone on prepared inputs; the stream (read,
           window, letterbox, engine, boxes) fed by threads, as `infer` does; by processes, as `score` does. The ceiling
           of stream over engine without more cores is the network's share of a film's CPU time, each part measured
           alone. Resident memory early and late in a stream of threads.
Without --folder, generated phantoms are written as 8-bit JPEG of 1024 px first.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import numpy as np
from costs import cpu_s, make_jpegs, parts_ms, resident_mb
from machine import environment, save

from msloc_edge.cli.inputs import Search
from msloc_edge.pipeline import Localizer, Outcome
from msloc_edge.score.archive import Film
from msloc_edge.score.feeder import Feeder

FILMS = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--model", default="cxr-edge")
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        films = Search().films_in(args.folder)[:FILMS] if args.folder else make_jpegs(Path(scratch), FILMS)
        result = {
            "what": f"{len(films)} films of {'generated phantoms, JPEG, 1024 px' if not args.folder else args.folder}",
            "load_average": round(os.getloadavg()[0], 2),
            "process": one_film(films[0], args.model, args.runs),
            "folder": whole_folder(films, args.model, args.rounds),
            "environment": environment("onnxruntime", "numpy", "opencv-python-headless", "pillow"),
        }
    print(result["process"], result["folder"], "->", save("infer", result), sep="\n")


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


def whole_folder(films: list[str], model: str, rounds: int) -> dict[str, Any]:
    """Rates of the engine and of the stream in both forms, what the parts allow, and resident memory."""
    parts = parts_ms(films, model)
    workers = len(os.sched_getaffinity(0))
    with Localizer(model) as localizer, Feeder(localizer, workers) as feeder:
        inputs = [localizer.prepare(film).input for film in films]
        archive = [Film(film, film) for film in films]
        kinds: dict[str, Callable[[], Iterable[object]]] = {
            "engine": lambda: (localizer.backend.run([film]) for film in inputs),
            "threads": lambda: map(good, localizer.stream(films, localizer.prepare, workers=workers)),
            "processes": lambda: map(good, localizer.stream(archive, feeder.load, workers=workers)),
        }
        turns = [{name: turn(run(), len(films)) for name, run in kinds.items()} for _ in range(rounds + 1)]
        memory = []
        for number, _ in enumerate(localizer.stream(chain.from_iterable(repeat(films, 16)), localizer.prepare)):
            if number in (len(films), 16 * len(films) - 1):
                memory.append(resident_mb())
    found = {name: np.array([each[name] for each in turns[1:]]) for name in kinds}
    of_engine = {name: found[name][:, 0] / found["engine"][:, 0] for name in kinds}
    return {
        "cpu_ms_of_parts": parts,
        "ceiling_of_stream_over_engine": round(parts["network"] / sum(parts.values()), 3),
        **{
            name: {
                "films_per_s": round(float(np.median(rates[:, 0])), 2),
                "cpu_ms": round(float(np.median(rates[:, 1])), 2),
                "over_engine": round(float(np.median(of_engine[name])), 3),
            }
            for name, rates in found.items()
        },
        "resident_mb_early_and_late": memory,
    }


def good(outcome: Outcome[Any]) -> None:
    assert outcome.result is not None, outcome.error


def turn(run: Iterable[object], films: int) -> tuple[float, float]:
    """Films a second of one run over `films`, and its CPU milliseconds a film."""
    wall, cpu = time.perf_counter(), cpu_s()
    for _ in run:
        pass
    return films / (time.perf_counter() - wall), 1e3 * (cpu_s() - cpu) / films


if __name__ == "__main__":
    main()
