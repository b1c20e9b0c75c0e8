"""The listener under load, and killed again and again, between DCMTK's storescu and storescp.

    python benchmarks/listen.py [--films 2000] [--seconds 600] [--backlog 100] [--kills 200] [--size 1024]

    load     --films films over four associations, spread evenly over --seconds: an hour's load in ten minutes. Latency
             from the start of storescu to the stored report; memory, handles and threads on the way
    backlog  --backlog films as fast as they go: films a second
    infer    films through the Localizer alone, and with the report made, for comparison
    kills    --kills listeners on one spool, each killed before one of its steps on disk, in the journal or to the node,
             while films come in; what was acknowledged is counted at the node at the end

Result: benchmarks/results/listen.json, written anew after each step; progress on stderr. Needs dcmtk, two idle cores
for about thirteen minutes.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pydicom

from msloc_edge import Localizer
from msloc_edge.objects import make_object
from msloc_edge.objects.encoding import encode

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "listen" / "peers"))

from dicom_peers import Listener, StoreScp, made_films, storescu, wait_until  # noqa: E402

PHANTOMS, ASSOCIATIONS, POINTS = 8, 4, 20
FILM_UID = "1.2.826.0.1.3680043.10.1338.1.{}"
BEGAN = time.monotonic()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--films", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--backlog", type=int, default=100)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--size", type=int, default=1024)
    args = parser.parse_args()
    from machine import environment, save  # here: the listeners' processes begin as this script does

    result: dict[str, Any] = {
        "what": __doc__.splitlines()[0],
        "busy": f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores before anything began",
        "environment": environment("pynetdicom", "highdicom", "dicomweb-client", "prometheus-client"),
    }
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        phantoms = list(made_films(folder / "phantoms", range(PHANTOMS), args.size))
        steps: dict[str, Callable[[], Any]] = {
            "load": lambda: load(folder / "load", phantoms, args.films, args.seconds),
            "backlog": lambda: load(folder / "backlog", phantoms, args.backlog, 0.0),
            "infer": lambda: alone(phantoms),
            "kills": lambda: kills(folder / "kills", args.kills),
        }
        for name, step in steps.items():
            tell(name)
            result[name] = step()
            tell(f"{name} -> {save('listen', result)}")


def tell(what: str) -> None:
    """Show on stderr how far it is."""
    print(f"{time.monotonic() - BEGAN:6.0f} s  {what}", file=sys.stderr, flush=True)


def named_anew(phantoms: list[Path], folder: Path, number: int) -> Path:
    """Write a film of a phantom's pixels, of a study of its own."""
    film = pydicom.dcmread(phantoms[number % len(phantoms)])
    film.SOPInstanceUID = film.file_meta.MediaStorageSOPInstanceUID = FILM_UID.format(number)
    film.StudyInstanceUID = f"1.2.826.0.1.3680043.10.1338.2.{number}"
    film.SeriesInstanceUID = f"1.2.826.0.1.3680043.10.1338.3.{number}"
    film.save_as(folder / f"{number}.dcm")
    return folder / f"{number}.dcm"


def load(folder: Path, phantoms: list[Path], films: int, seconds: float) -> dict[str, Any]:
    """Films at an even pace, from several senders; the service's own figures on the way."""
    folder.mkdir()
    node = StoreScp(folder / "node")
    listener = Listener(folder / "listener", {"nodes": [node.node("sr")]})
    port, points, sent, started = listener.port, [], {}, time.monotonic()

    def send(number: int) -> bool:
        film = named_anew(phantoms, folder, number)
        time.sleep(max(0.0, started + seconds * number / films - time.monotonic()))
        sent[FILM_UID.format(number)] = time.time()
        taken = storescu(port, [film])
        film.unlink()
        if (number + 1) % max(1, films // POINTS) == 0:
            points.append({"films": number + 1, **figures(listener)})
            tell(f"  {points[-1]}")
        return bool(taken)

    with ThreadPoolExecutor(ASSOCIATIONS) as senders:
        acknowledged = sum(senders.map(send, range(films)))
    wait_until(lambda: len(listener.of("object confirmed")) >= acknowledged, "the last report", 3600)
    wall = time.monotonic() - started
    wait_until(lambda: len(listener.of("film deleted")) >= acknowledged, "the last film's end")
    confirmed = {line["film"]: datetime.fromisoformat(line["time"]) for line in listener.of("object confirmed")}
    latencies = [time.timestamp() - sent[film] for film, time in confirmed.items()]
    reports, status = node.reports(), listener.stop()
    node.stop()
    return {
        "films": films,
        "size": f"{pydicom.dcmread(phantoms[0]).Rows} px",
        "acknowledged": acknowledged,
        "reports": len(reports),
        "under_two_uids": sum(len(uids) > 1 for uids in reports.values()),
        "wall_s": round(wall, 1),
        "films_per_s": round(films / wall, 2),
        "latency_s": {f"p{q}": round(float(np.percentile(latencies, q)), 3) for q in (50, 90, 99)},
        "on_the_way": points,
        "exit_status": status,
    }


def figures(listener: Listener) -> dict[str, float]:
    """Memory, handles and threads of the service."""
    status = Path(f"/proc/{listener.process.pid}/status").read_text()
    found = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    return {
        "resident_mb": round(int(found["VmRSS"].split()[0]) / 1024, 1),
        "threads": int(found["Threads"]),
        "handles": len(os.listdir(f"/proc/{listener.process.pid}/fd")),
    }


def alone(phantoms: list[Path]) -> dict[str, float]:
    """Films a second of the Localizer alone, and with the report; CPU seconds of each part of a film."""
    with Localizer() as localizer:
        localizer.localize(phantoms[0])
        localized, cpu = [], time.process_time()
        wall = time.perf_counter()
        for phantom in phantoms:
            localized.append((localizer.localize(phantom), phantom.read_bytes()))
        rate, seconds = len(phantoms) / (time.perf_counter() - wall), time.process_time() - cpu
        encode(make_object(*localized[0], "sr"))
        wall, cpu = time.perf_counter(), time.process_time()
        for result, data in localized:
            encode(make_object(result, data, "sr"))
        with_report = 1 / (1 / rate + (time.perf_counter() - wall) / len(phantoms))
    return {
        "films_per_s": round(rate, 2),
        "films_per_s_with_report": round(with_report, 2),
        "localize_cpu_s": round(seconds / len(phantoms), 4),
        "report_cpu_s": round((time.process_time() - cpu) / len(phantoms), 4),
    }


def kills(folder: Path, number: int) -> dict[str, Any]:
    """Kill a listener at a random step, three in four while it serves, with a new film each time."""
    folder.mkdir()
    node, rng, seeds = StoreScp(folder / "node"), random.Random(0), count()
    tables = {"nodes": [node.node("sr")]}
    acknowledged: set[str] = set()
    unsent: list[Path] = []
    killed = {"before it listened": 0, "at a step later": 0, "when all was done": 0}
    for kill in range(number):
        step = -rng.randrange(1, 70) if kill % 4 else rng.randrange(1, 30)
        listener = Listener(folder / "listener", tables, die_at=step)
        films = [*unsent, *made_films(folder / "films", [next(seeds)], 64)]
        wait_until(lambda one=listener: one.of("listening") or not one.process.is_alive(), "a start or an end")
        listened = bool(listener.of("listening"))
        taken = storescu(listener.port, films) if listened else []
        acknowledged |= {uid_of(film) for film in taken}
        unsent = [film for film in films if film not in taken]
        wait_until(lambda one=listener, taken=taken: is_over(one, len(taken)), "its end, or that of its work")
        how = (
            "when all was done"
            if listener.process.is_alive()
            else "at a step later"
            if listened
            else "before it listened"
        )
        killed[how] += 1
        listener.kill()
        if (kill + 1) % max(1, number // POINTS) == 0:
            tell(f"  {killed}")
    last = Listener(folder / "listener", tables)
    left = storescu(last.port, unsent) if unsent else []
    acknowledged |= {uid_of(film) for film in left}
    wait_until(lambda: acknowledged <= set(node.reports()) or None, "all that was acknowledged", 600)
    last.stop()
    node.stop()
    reports = node.reports()
    return {
        "kills": killed,
        "acknowledged": len(acknowledged),
        "lost": len(acknowledged - set(reports)),
        "under_two_uids": sum(len(uids) > 1 for uids in reports.values()),
    }


def is_over(listener: Listener, films: int) -> bool:
    """Whether a listener has been killed, or has nothing left to do."""
    return not listener.process.is_alive() or len(listener.of("film deleted")) >= max(1, films)


def uid_of(film: Path) -> str:
    """SOP instance UID of a film."""
    return str(pydicom.dcmread(film, stop_before_pixels=True).SOPInstanceUID)


if __name__ == "__main__":
    main()
