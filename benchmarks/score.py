"""Archives: rows after kills, on one host and by Ray; rate against what the parts cost; memory over a long run.

    python benchmarks/score.py [--films 5000] [--kills 20] [--ray] [--speed 2048] [--memory 0] [--model cxr-edge]

kills   generated films scored, killed at random moments, gone on with: every film in one row, none twice, none lost,
        scores those of a run that nobody killed, and no process left behind
--ray   the same by `score --ray` on two nodes of this machine; then a run in which one node is killed; in speed, Ray's
        rate over one host's on the same cores; bar: 0.85
speed   a film's CPU milliseconds of reading, network and boxes, each measured alone on one core, and with all cores
        busy; the rate that they allow, the rate of a job, and what its processes used; bar: 0.95 of the parts alone
memory  resident memory of the program and of its decoding processes over so many films, each with other pixels;
        100,000 take a quarter of an hour on 2 cores
Each part is written to benchmarks/results/score.json when it is done; one that is not asked for (0) stays as it was.
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
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from multiprocessing import active_children
from pathlib import Path
from subprocess import DEVNULL
from typing import Any

import cv2
import numpy as np
from costs import cpu_s, make_jpegs, parts_ms, parts_ms_together, resident_mb
from local_ray import LocalRay, descendants
from pyarrow import dataset as arrow

from msloc_edge.pipeline import Localizer
from msloc_edge.score.archive import Film, Shard
from msloc_edge.score.dataset import Dataset, Row
from msloc_edge.score.job import on_this_host, run

SCORE = [sys.executable, "-m", "msloc_edge", "score"]
SETTINGS = {"precision": "fp32", "input_gate": True, "maps": False}


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
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for number in range(count):
        noise = rng.normal(0, 2, (side, side))
        film = np.clip(_phantom(number % 16, side) + noise, 0, 255).astype(np.uint8)
        data = b"no film" if number % 50 == 49 else cv2.imencode(".png", film)[1].tobytes()
        (folder / f"{number:05}.png").write_bytes(data)
    return folder


@cache
def _phantom(seed: int, side: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A phantom of 10 to 245, kept: it is varied again and again."""
    from msloc_edge.train.phantom import generate

    return (generate(seed, side).display() * 235 + 10).astype(np.uint8)


# Kills


def kill_runs(
    films: Path, out: Path, kills: int, words: list[str], environment: Mapping[str, str] | None = None
) -> Kills:
    """Score `films` into `out`, killed `kills` times: when a part more is there, and then at a random moment.

    words  options of `score`
    """
    rng, found = random.Random(0), Kills()
    command = [*SCORE, str(films), str(out), *words, "-q"]
    while found.kills < kills:
        process = subprocess.Popen(command, stdout=DEVNULL, stderr=DEVNULL, env=environment)
        if not _writes_part(process, out):
            break
        time.sleep(rng.uniform(0, 0.1))
        helpers = descendants(process.pid)
        process.kill()
        process.wait()
        found.kills += 1
        found.processes_left += _still_running(helpers)
    subprocess.run(command, stdout=DEVNULL, stderr=DEVNULL, env=environment)
    _count_rows(found, films, out)
    return found


def kill_node(films: Path, out: Path, words: list[str], ray: LocalRay) -> Kills:
    """Score `films` by Ray into `out`, with a worker of the head killed and the other node, when a part is there."""
    found = Kills()
    command = [*SCORE, str(films), str(out), "--ray", *words, "-q"]
    process = subprocess.Popen(command, stdout=DEVNULL, stderr=DEVNULL, env=ray.environment)
    if _writes_part(process, out):
        for pid in ray.workers(0)[:1]:
            os.kill(pid, 9)
        ray.kill_node(1)
        found.kills = 1
    process.wait()
    _count_rows(found, films, out)
    return found


def _writes_part(process: subprocess.Popen[bytes], out: Path) -> bool:
    """Wait until a run has written a part more; False when it ends before."""
    before = len(list(out.glob("*/part-*")))
    while process.poll() is None:
        if len(list(out.glob("*/part-*"))) > before:
            return True
        time.sleep(0.005)
    return False


def _count_rows(found: Kills, films: Path, out: Path) -> None:
    names = Counter(name for table in ("films", "failures") for name in column(out / table, "input"))
    inputs = {str(film) for film in films.iterdir()}
    found.films = len(names)
    found.lost, found.foreign = len(inputs - set(names)), len(set(names) - inputs)
    found.doubled = names.total() - len(names)
    found.left_over = len(list(out.glob("*/.*")))


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


def speed(count: int, model: str, scratch: Path, ray: bool) -> dict[str, Any]:
    """Rate of a job over what the CPU milliseconds of its parts allow on all cores."""
    films = make_jpegs(scratch / "large")
    cores = len(os.sched_getaffinity(0))
    archive = [Film(f"{number}", films[number % len(films)]) for number in range(count)]
    alone, together = parts_ms(films, model), parts_ms_together(films, model, cores)
    allowed, allowed_together = (1e3 * cores / sum(parts.values()) for parts in (alone, together))
    with Localizer(model, threads=1, lanes=cores) as localizer:  # as `score` opens it
        rate, cpu_ms, decoders_ms = timed(on_this_host(localizer, cores, 1, False)(archive), count)
        size = localizer.bundle.input_size
    found = {
        "what": f"{count} films, JPEG, 1024 px, {len(films)} phantoms again and again",
        "cores": cores,
        "load_average": round(os.getloadavg()[0], 2),
        "cpu_ms_of_parts": alone,
        "cpu_ms_of_parts_with_all_cores_busy": together,
        "cpu_ms_of_job": {"program": round(cpu_ms - decoders_ms, 2), "decoders": round(decoders_ms, 2)},
        "films_per_s_allowed": round(allowed, 2),
        "films_per_s": round(rate, 2),
        "over_allowed": round(rate / allowed, 3),
        "over_allowed_with_all_cores_busy": round(rate / allowed_together, 3),
        "cpu_over_parts": round(cpu_ms / sum(alone.values()), 3),
    }
    if ray:
        ray_rate = _by_ray(archive, model, size, cores)
        found |= {"ray": {"films_per_s": round(ray_rate, 2), "over_one_host": round(ray_rate / rate, 3)}}
    return found


def _by_ray(archive: list[Film], model: str, input_size: tuple[int, int], cores: int) -> float:
    """Films a second by Ray on one node of all cores."""
    from msloc_edge.score.on_ray import on_ray

    options = {"model": model, "backend": "onnxruntime", "device": None, "threads": None}
    with LocalRay(nodes=1, cpus=cores) as node:
        os.environ.update(node.environment)
        return timed(on_ray(options, input_size, None, 1, False)(archive), len(archive))[0]


def timed(rows: Iterator[Row], count: int) -> tuple[float, float, float]:
    """Films a second of a job behind its first eighth, in which processes start; CPU milliseconds a film of all its
    processes, and of those below this one."""
    first = count // 8
    for _ in range(first):
        next(rows)
    wall, cpu, below = time.perf_counter(), cpu_s(), cpu_s(descendants(os.getpid()))
    for _ in range(count - first - 1):
        next(rows)
    done = count - first - 1
    below, cpu = cpu_s(descendants(os.getpid())) - below, cpu_s() - cpu
    rate = done / (time.perf_counter() - wall)
    for _ in rows:  # processes end with the last one
        pass
    return rate, 1e3 * cpu / done, 1e3 * below / done


# Memory


@dataclass(frozen=True, slots=True)
class Varied(Film):
    """A phantom of 256 px with pixels of its own, made as it is read."""

    def read(self) -> bytes:
        seed = int(self.input)
        noise = np.random.default_rng(seed).integers(0, 5, (256, 256), np.uint8)
        film = _phantom(seed % 300, 256) + noise
        return cv2.imencode(".png", film, [cv2.IMWRITE_PNG_COMPRESSION, 0])[1].tobytes()


def memory(count: int, model: str, scratch: Path, points: int = 10) -> dict[str, Any]:
    """Resident megabytes of the program and of its decoding processes, after each `count` / `points` films."""
    seen: list[tuple[int, int]] = []
    done = iter(range(1, count + 1))

    def look() -> None:
        if next(done) % (count // points) == 0:
            seen.append((resident_mb(), sum(resident_mb(child.pid or "self") for child in active_children())))
            print(*seen[-1], flush=True)

    start = time.monotonic()
    with Localizer(model) as localizer:
        dataset = Dataset.create(scratch / "memory", localizer, SETTINGS)
        films = (Varied(f"{number}", "") for number in range(count))
        source = on_this_host(localizer, len(os.sched_getaffinity(0)), 1, False)
        run(dataset, films, source, Shard(), advance=look)
    program, decoders = zip(*seen, strict=True)
    half = points // 2
    return {
        "what": f"{count} films of 256 px, 300 phantoms with other noise in each; MB after each {count // points}",
        "program_mb": program,
        "decoders_mb": decoders,
        "second_half_mb_per_1000": round((sum(seen[-1]) - sum(seen[half - 1])) / (count / 2000), 4),
        "minutes": round((time.monotonic() - start) / 60, 1),
    }


class Results:
    """benchmarks/results/score.json, written again with each part."""

    def __init__(self) -> None:
        from machine import RESULTS, environment

        file = RESULTS / "score.json"
        self._parts = json.loads(file.read_text()) if file.exists() else {}
        self._about = environment("onnxruntime", "numpy", "opencv-python-headless", "pyarrow", "simplejpeg", "ray")

    def add(self, part: str, found: dict[str, Any]) -> None:
        from machine import save

        self._parts[part] = found | {"environment": self._about}
        print(part, json.dumps(found), "->", save("score", self._parts), flush=True)


def all_kills(films: Path, scratch: Path, args: argparse.Namespace, results: Results) -> None:
    part = max(1, args.films // (2 * args.kills))
    words = ["--model", args.model, "--part", str(part)]
    whole = scratch / "whole"
    subprocess.run([*SCORE, str(films), str(whole), *words, "-q"], stdout=DEVNULL)

    def add(name: str, kills: Kills, out: Path) -> None:
        kills.other_scores = other_scores(out, whole)
        results.add(name, {"what": f"{args.films} films, parts of {part}", **asdict(kills)})

    add("kills", kill_runs(films, scratch / "killed", args.kills, [*words, "--workers", "1"]), scratch / "killed")
    if args.ray:
        with LocalRay() as ray:
            by_ray = kill_runs(films, scratch / "by-ray", args.kills, [*words, "--ray"], ray.environment)
            add("ray_kills", by_ray, scratch / "by-ray")
            add("ray_node_killed", kill_node(films, scratch / "node", words, ray), scratch / "node")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--films", type=int, default=5000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--ray", action="store_true")
    parser.add_argument("--speed", type=int, default=2048)
    parser.add_argument("--memory", type=int, default=0)
    parser.add_argument("--model", default="cxr-edge")
    args = parser.parse_args()
    results = Results()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        if args.kills:
            all_kills(make_films(scratch / "films", args.films), scratch, args, results)
        if args.speed:
            results.add("speed", speed(args.speed, args.model, scratch, args.ray))
        if args.memory:
            results.add("memory", memory(args.memory, args.model, scratch))


if __name__ == "__main__":
    main()
