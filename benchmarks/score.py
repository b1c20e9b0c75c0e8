"""Archives: rows after kills, rate against what the parts cost, memory over a long run.

    python benchmarks/score.py [--films 5000] [--kills 20] [--speed 256] [--model cxr-edge]

kills   generated films scored, killed at random moments, gone on with: every film in one row, none twice, none lost,
        scores those of a run that nobody killed, and no process left behind
speed   a film's CPU milliseconds of reading, network and boxes, each measured alone on one core; the rate that they
        allow on all cores, and the rate of a job; bar: 0.95. Resident memory early and late in it
Result: benchmarks/results/score.json; a part that is not asked for (0) stays as it was.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from subprocess import DEVNULL
from typing import Any

import cv2
import numpy as np
from pyarrow import dataset as arrow

SCORE = [sys.executable, "-m", "msloc_edge", "score"]


@dataclass
class Kills:
    """What became of killed runs; all but the first two must be 0."""

    kills: int = 0
    films: int = 0
    lost: int = 0
    doubled: int = 0
    foreign: int = 0
    other_scores: int = 0
    left_over: int = 0
    processes_left: int = 0


def make_films(folder: Path, count: int, side: int = 64) -> Path:
    """Write `count` films, each another: 16 phantoms with noise; one in 50 is no film."""
    from msloc_edge.train.phantom import generate

    rng = np.random.default_rng(0)
    phantoms = [generate(seed, side).display() * 235 + 10 for seed in range(16)]
    folder.mkdir(parents=True)
    for number in range(count):
        noise = rng.normal(0, 2, (side, side))
        film = np.clip(phantoms[number % 16] + noise, 0, 255).astype(np.uint8)
        data = b"no film" if number % 50 == 49 else cv2.imencode(".png", film)[1].tobytes()
        (folder / f"{number:05}.png").write_bytes(data)
    return folder


def kill_runs(films: Path, out: Path, kills: int, model: str, part: int, seed: int = 0) -> Kills:
    """Score `films` into `out`, killed `kills` times: when a part more is there, and then at a random moment."""
    rng, found = random.Random(seed), Kills()
    command = [*SCORE, str(films), str(out), "--model", model, "--part", str(part), "--workers", "1", "-q"]
    while found.kills < kills:
        before = len(list(out.glob("*/part-*")))
        process = subprocess.Popen(command, stdout=DEVNULL, stderr=DEVNULL)
        while process.poll() is None and len(list(out.glob("*/part-*"))) == before:
            time.sleep(0.005)
        if process.poll() is not None:
            break
        time.sleep(rng.uniform(0, 0.1))
        helpers = _children(process.pid)
        process.kill()
        process.wait()
        found.kills += 1
        found.processes_left += _still_running(helpers)
    subprocess.run(command, stdout=DEVNULL, stderr=DEVNULL)
    names = Counter(name for table in ("films", "failures") for name in column(out / table, "input"))
    inputs = {str(film) for film in films.iterdir()}
    found.films = len(names)
    found.lost, found.foreign = len(inputs - set(names)), len(set(names) - inputs)
    found.doubled = names.total() - len(names)
    found.left_over = len(list(out.glob("*/.*")))
    return found


def column(folder: Path, name: str) -> list[Any]:
    return list(arrow.dataset(folder).to_table([name]).column(0).to_pylist()) if any(folder.iterdir()) else []


def other_scores(out: Path, other: Path) -> int:
    """Count the films whose scores or boxes are not those of another dataset: 1e-5, and the same boxes."""
    tables = [arrow.dataset(folder / "films").to_table().sort_by("input").to_pylist() for folder in (out, other)]
    return abs(len(tables[0]) - len(tables[1])) + sum(not _alike(*rows) for rows in zip(*tables, strict=False))


def _alike(row: dict[str, Any], other: dict[str, Any]) -> bool:
    scores = (name for name in row if name.startswith("score_"))
    close = all(row[name] == other[name] or abs(row[name] - other[name]) < 1e-5 for name in scores)
    return close and (row["input"], row["boxes"]) == (other["input"], other["boxes"])


def _children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def _still_running(pids: list[int], patience_s: float = 20) -> int:
    """Count the processes that have not ended a while after their parent."""
    end = time.monotonic() + patience_s
    while time.monotonic() < end and any(map(_runs, pids)):
        time.sleep(0.05)
    return sum(map(_runs, pids))


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# Speed


def parts_ms(films: list[str], model: str) -> dict[str, float]:
    """CPU milliseconds of a film, median: read, network, boxes and row, each alone in one thread."""
    from msloc_edge.pipeline import Localizer, Outcome
    from msloc_edge.score.archive import Film
    from msloc_edge.score.dataset import to_row
    from msloc_edge.score.feeder import read_film

    cv2.setNumThreads(1)
    laps: dict[str, list[float]] = {"read": [], "network": [], "locate": []}
    with Localizer(model, threads=1) as localizer:
        for path in films[:64]:
            film, times = Film(path, path), [time.process_time()]
            prepared = read_film(localizer.bundle.input_size, film)
            times.append(time.process_time())
            localizer.backend.run([prepared.input])
            times.append(time.process_time())
            to_row(Outcome(film, prepared, localizer.run([prepared])[0]))
            times.append(time.process_time())
            read, network, both = np.diff(times) * 1e3
            for name, lap in zip(laps, (read, network, both - network), strict=True):
                laps[name].append(float(lap))
    return {name: round(float(np.median(values[4:])), 2) for name, values in laps.items()}


def speed(count: int, model: str, scratch: Path) -> dict[str, Any]:
    """Rate of a job over what the CPU milliseconds of its parts allow on all cores."""
    from msloc_edge.pipeline import Localizer
    from msloc_edge.score.archive import Film
    from msloc_edge.score.job import on_this_host

    folder = scratch / "large"
    films = [str(film) for film in sorted(make_jpegs(folder).iterdir())]
    cores = len(os.sched_getaffinity(0))
    parts = parts_ms(films, model)
    memory: list[int] = []
    with Localizer(model) as localizer:
        archive = [Film(f"{number}", films[number % len(films)]) for number in range(count)]
        rows = on_this_host(localizer, cores, 1, False)(archive)
        for _ in islice(rows, 32):  # processes have started
            pass
        wall, cpu = time.perf_counter(), _cpu_s()
        for number, _ in enumerate(rows):
            if number in (count // 10, count - 33):
                memory.append(resident_mb())
        wall, cpu = time.perf_counter() - wall, _cpu_s() - cpu
    done, allowed = count - 32, 1e3 * cores / sum(parts.values())
    return {
        "what": f"{count} films, JPEG, 1024 px, {len(films)} phantoms again and again",
        "cores": cores,
        "load_average": os.getloadavg()[0],
        "cpu_ms_of_parts": parts,
        "cpu_ms_of_job": round(1e3 * cpu / done, 2),
        "films_per_s_allowed": round(allowed, 2),
        "films_per_s": round(done / wall, 2),
        "ratio": round(done / wall / allowed, 3),
        "cpu_ratio": round(sum(parts.values()) / (1e3 * cpu / done), 3),
        "resident_mb_early_and_late": memory,
    }


def make_jpegs(folder: Path) -> Path:
    from msloc_edge.train.phantom import generate

    folder.mkdir()
    for seed in range(32):
        film = np.round(generate(seed, 1024).display() * 255).astype(np.uint8)
        cv2.imwrite(str(folder / f"{seed:03}.jpg"), film, [cv2.IMWRITE_JPEG_QUALITY, 90])
    return folder


def _cpu_s() -> float:
    """Processor time so far of this process and of those that it started and that run."""
    ticks = os.sysconf("SC_CLK_TCK")
    return sum(sum(map(int, stat[11:13])) / ticks for stat in _stats([os.getpid(), *_children(os.getpid())]))


def _stats(pids: list[int]) -> Iterator[list[str]]:
    for pid in pids:
        yield Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def resident_mb() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") >> 20


def main() -> None:
    from machine import RESULTS, environment, save

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--films", type=int, default=5000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--speed", type=int, default=256)
    parser.add_argument("--model", default="cxr-edge")
    args = parser.parse_args()
    file = RESULTS / "score.json"
    result = json.loads(file.read_text()) if file.exists() else {}
    about = environment("onnxruntime", "numpy", "opencv-python-headless", "pyarrow", "simplejpeg")
    with tempfile.TemporaryDirectory() as scratch:
        if args.kills:
            films, out, whole = (Path(scratch) / name for name in ("films", "out", "whole"))
            part = max(1, args.films // (2 * args.kills))
            kills = kill_runs(make_films(films, args.films), out, args.kills, args.model, part)
            subprocess.run([*SCORE, str(films), str(whole), "--model", args.model, "-q"], stdout=DEVNULL)
            kills.other_scores = other_scores(out, whole)
            result["kills"] = {"what": f"{args.films} films, parts of {part}", **asdict(kills), "environment": about}
            print(result["kills"])
        if args.speed:
            result["speed"] = speed(args.speed, args.model, Path(scratch)) | {"environment": about}
            print(result["speed"])
    print("->", save("score", result))


if __name__ == "__main__":
    main()
