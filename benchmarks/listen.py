"""The listener under load, and killed again and again, between DCMTK's storescu and storescp.

    python benchmarks/listen.py [--films 2000] [--seconds 600] [--kills 200] [--size 1024]

    load    --films films over four associations, spread evenly over --seconds (0: as fast as they go): latency from
            C-STORE to the stored report, films a second, memory, handles and threads on the way
    infer   the same films through the Localizer alone, and with the report made, for comparison
    kills   --kills listeners on one spool, each killed before one of its steps on disk, in the journal or to the node,
            while films come in; what was acknowledged is counted at the node at the end

Result: benchmarks/results/listen.json. Needs dcmtk.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--films", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--size", type=int, default=1024)
    args = parser.parse_args()
    from machine import environment, save  # here: the listeners' processes begin as this script does

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        phantoms = list(made_films(folder / "phantoms", range(PHANTOMS), args.size))
        result: dict[str, Any] = {
            "what": __doc__.splitlines()[0],
            "busy": f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores before anything began",
            "environment": environment("pynetdicom", "highdicom", "dicomweb-client", "prometheus-client"),
        }
        result["load"] = load(folder / "load", phantoms, args.films, args.seconds)
        print(save("listen", result))
        result["infer"] = alone(phantoms)
        result["kills"] = kills(folder / "kills", args.kills)
        print(save("listen", result))


def named_anew(phantoms: list[Path], folder: Path, number: int) -> Path:
    """Write a film of a phantom's pixels, of a study of its own."""
    film = pydicom.dcmread(phantoms[number % len(phantoms)])
    film.SOPInstanceUID = film.file_meta.MediaStorageSOPInstanceUID = f"1.2.826.0.1.3680043.10.1338.1.{number}"
    film.StudyInstanceUID = f"1.2.826.0.1.3680043.10.1338.2.{number}"
    film.SeriesInstanceUID = f"1.2.826.0.1.3680043.10.1338.3.{number}"
    film.save_as(folder / f"{number}.dcm")
    return folder / f"{number}.dcm"


def load(folder: Path, phantoms: list[Path], films: int, seconds: float) -> dict[str, Any]:
    """Films at an even pace, from several senders; the service's own figures on the way."""
    folder.mkdir()
    node = StoreScp(folder / "node")
    listener = Listener(folder / "listener", {"nodes": [node.node("sr")]})
    port, points, started = listener.port, [], time.monotonic()

    def send(number: int) -> bool:
        film = named_anew(phantoms, folder, number)
        time.sleep(max(0.0, started + seconds * number / films - time.monotonic()))
        taken = storescu(port, [film])
        film.unlink()
        if (number + 1) % max(1, films // POINTS) == 0:
            points.append({"films": number + 1, **figures(listener)})
        return bool(taken)

    with ThreadPoolExecutor(ASSOCIATIONS) as senders:
        acknowledged = sum(senders.map(send, range(films)))
    wait_until(lambda: len(listener.of("film deleted")) == films, "the last report", 3600)
    wall = time.monotonic() - started
    reports, latencies, status = node.reports(), latency(listener), listener.stop()
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


def latency(listener: Listener) -> list[float]:
    """Seconds from a film's arrival to the confirmation of its report, as the log has them."""
    arrived = {line["film"]: datetime.fromisoformat(line["time"]) for line in listener.of("film received")}
    return [
        (datetime.fromisoformat(line["time"]) - arrived[line["film"]]).total_seconds()
        for line in listener.of("object confirmed")
    ]


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
    """Kill a listener at a random step, three in four while it serves, with two new films each time."""
    folder.mkdir()
    node, rng, seeds = StoreScp(folder / "node"), random.Random(0), count()
    tables = {"nodes": [node.node("sr")]}
    acknowledged: set[str] = set()
    unsent: list[Path] = []
    killed = {"before it listened": 0, "later": 0, "not at all": 0}
    for kill in range(number):
        listener = Listener(
            folder / "listener", tables, die_at=-rng.randrange(1, 70) if kill % 4 else rng.randrange(1, 30)
        )
        films = [*unsent, *made_films(folder / "films", (next(seeds), next(seeds)), 64)]
        wait_until(lambda one=listener: one.of("listening") or not one.process.is_alive(), "a start or an end")
        listened = bool(listener.of("listening"))
        taken = storescu(listener.port, films) if listened else []
        acknowledged |= {str(pydicom.dcmread(film, stop_before_pixels=True).SOPInstanceUID) for film in taken}
        unsent = [film for film in films if film not in taken]
        end = time.monotonic() + 5
        while listener.process.is_alive() and time.monotonic() < end:
            time.sleep(0.02)
        how = "not at all" if listener.process.is_alive() else "later" if listened else "before it listened"
        killed[how] += 1
        listener.kill()
    last = Listener(folder / "listener", tables)
    left = storescu(last.port, unsent) if unsent else []
    acknowledged |= {str(pydicom.dcmread(film, stop_before_pixels=True).SOPInstanceUID) for film in left}
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


if __name__ == "__main__":
    main()
