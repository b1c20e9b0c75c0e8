"""Real peers of the listener, and the listener itself, each in a process of its own that can be watched and killed.

tests/listen and benchmarks/listen.py use them: storescu, echoscu and storescp of DCMTK, and Orthanc with DICOMweb.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from itertools import count
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pydicom

PATIENCE = 400.0
"""Seconds until something that should happen counts as lost."""

AE_TITLE = "MSLOC_EDGE"


def free_port() -> int:
    """A port that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(true: Callable[[], Any], what: str, patience: float = PATIENCE) -> Any:
    """The first true answer of `true`; AssertionError where it stays false."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        if answer := true():
            return answer
        time.sleep(0.02)
    raise AssertionError(f"waited {patience:.0f} s for {what}")


def write_toml(path: Path, tables: dict[str, Any]) -> Path:
    """Write a configuration; JSON's values are TOML's, and a list of dicts is an array of tables."""
    lines: list[str] = []

    def add(name: str, values: dict[str, Any], brackets: str) -> None:
        if name:
            lines.append(brackets.replace("*", name))
        inner = {key: value for key, value in values.items() if isinstance(value, dict)}
        arrays = {key: value for key, value in values.items() if isinstance(value, list) and value and
                  isinstance(value[0], dict)}  # fmt: skip
        lines.extend(f"{k} = {json.dumps(v)}" for k, v in values.items() if k not in inner and k not in arrays)
        for key, value in inner.items():
            add(f"{name}.{key}".lstrip("."), value, "[*]")
        for key, items in arrays.items():
            for item in items:
                add(f"{name}.{key}".lstrip("."), item, "[[*]]")

    add("", tables, "")
    path.write_text("\n".join(lines) + "\n")
    return path


class Listener:
    """`msloc-edge listen` in a process of its own, forked from one that has imported everything: it starts in a moment.

    die_at  the process kills itself, as SIGKILL does, before its n-th step on disk, in the journal or to a node;
            a negative number counts from the moment when it listens
    """

    _context: ForkServerContext | None = None

    def __init__(self, folder: Path, tables: dict[str, Any], die_at: int = 0) -> None:
        tables = {"spool": str(folder / "spool"), **tables}
        tables["receive"] = {"port": 0, "timeout_s": 60.0, **tables.get("receive", {})}
        tables["metrics"] = {"port": 0, **tables.get("metrics", {})}
        folder.mkdir(exist_ok=True)
        self.spool, self.config = folder / "spool", write_toml(folder / "listen.toml", tables)
        self._log = folder / f"log-{time.monotonic_ns()}.jsonl"
        self._log.touch()
        self.process = self._forkserver().Process(target=_serve, args=(self.config, self._log, die_at), daemon=True)
        self.process.start()

    @classmethod
    def _forkserver(cls) -> ForkServerContext:
        if cls._context is None:
            cls._context = multiprocessing.get_context("forkserver")
            cls._context.set_forkserver_preload(["msloc_edge.listen.service", "onnxruntime"])
        return cls._context

    @property
    def events(self) -> list[dict[str, Any]]:
        """Everything that it has logged."""
        return [json.loads(line) for line in self._log.read_text().splitlines() if line.endswith("}")]

    def of(self, event: str, **facts: Any) -> list[dict[str, Any]]:
        """The lines of one event with these facts."""
        return [
            line for line in self.events if line["event"] == event and all(line.get(k) == v for k, v in facts.items())
        ]

    def wait_for(self, event: str, number: int = 1, **facts: Any) -> list[dict[str, Any]]:
        """The lines of an event, when there are so many."""

        def enough() -> list[dict[str, Any]]:
            found = self.of(event, **facts)
            assert self.process.is_alive() or len(found) >= number, f"the listener has ended: {self.events[-3:]}"
            return found if len(found) >= number else []

        return wait_until(enough, f"{number} x {event} {facts}")  # type: ignore[no-any-return]

    @property
    def port(self) -> int:
        """The port that it listens on, when it does."""
        return int(self.wait_for("listening")[0]["port"])

    def get(self, path: str) -> tuple[int, str]:
        """Status and text of a page of its metrics port."""
        url = f"http://127.0.0.1:{self.wait_for('listening')[0]['metrics_port']}{path}"
        return get(url)

    def kill(self) -> None:
        """End it as a power failure would."""
        self.process.kill()
        self.process.join()

    def stop(self) -> int:
        """End it as systemd would; returns its exit status."""
        assert self.process.pid
        os.kill(self.process.pid, signal.SIGTERM)
        self.process.join(PATIENCE)
        assert self.process.exitcode is not None, "it does not end"
        return self.process.exitcode


def _serve(config: Path, log: Path, die_at: int) -> None:
    from msloc_edge.listen import Service, read_config
    from msloc_edge.listen.log import Log

    settings = read_config(config)
    if die_at > 0:
        _die_at(die_at, settings.spool)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    with log.open("a") as stream:
        service = Service(settings, Log(stream))
        if die_at < 0:
            _die_at(-die_at, settings.spool)
        service.run(stop)


def _die_at(number: int, spool: str) -> None:
    """Count every change on disk and in the journal, and every object sent, before and after; die at the n-th."""
    from msloc_edge.journal import Journal
    from msloc_edge.listen.send import StoreClient, StowClient

    steps = count(1)

    def step() -> None:
        if next(steps) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        if event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir") and spool in os.fspath(arguments[0]):
            step()

    def around(owner: Any, name: str) -> None:
        method = getattr(owner, name)

        def counted(*arguments: Any) -> Any:
            step()
            value = method(*arguments)
            step()
            return value

        setattr(owner, name, counted)

    sys.addaudithook(audit)
    around(os, "fsync")
    around(Journal, "_run")
    around(StoreClient, "send")
    around(StowClient, "send")


class StoreScp:
    """DCMTK's storescp: a node whose objects are files of a folder."""

    def __init__(self, folder: Path, *options: str, port: int = 0, ae_title: str = "NODE") -> None:
        self.folder, self.port, self.ae_title = folder, port or free_port(), ae_title
        self._options = options
        folder.mkdir(exist_ok=True)
        self.start()

    def start(self) -> None:
        """Begin, or begin again."""
        command = ["storescp", "-aet", self.ae_title, "-od", str(self.folder), *self._options, str(self.port)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(lambda: connects(self.port), "storescp")

    def stop(self) -> None:
        """Be gone."""
        self._process.kill()
        self._process.wait()

    def node(self, *kinds: str, **options: Any) -> dict[str, Any]:
        """The table [[nodes]] that names it."""
        return {"name": "pacs", "objects": list(kinds or ("sr",)), "ae_title": self.ae_title, "host": "127.0.0.1",
                "port": self.port, **options}  # fmt: skip

    @property
    def objects(self) -> dict[str, Path]:
        """UID -> file of what it has got."""
        return {path.name.partition(".")[2]: path for path in self.folder.iterdir()}

    def reports(self) -> dict[str, list[str]]:
        """SOP instance UID of a film -> UIDs of the reports on it."""
        found: dict[str, list[str]] = {}
        for path in self.folder.glob("SR*"):
            try:
                report = pydicom.dcmread(path)
                (film,) = film_uids(report)
            except (pydicom.errors.InvalidDicomError, EOFError, AttributeError):  # storescp writes it just now
                continue
            found.setdefault(film, []).append(str(report.SOPInstanceUID))
        return found


def film_uids(report: pydicom.Dataset) -> set[str]:
    """SOP instance UIDs of the films that a report is on, from its evidence (PS3.3 C.17.2)."""
    return {
        str(instance.ReferencedSOPInstanceUID)
        for study in report.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for instance in series.ReferencedSOPSequence
    }


class Orthanc:
    """Orthanc with DICOMweb: a node by C-STORE and by STOW-RS, an archive, and a REST interface to look into it."""

    def __init__(self, folder: Path, **configuration: Any) -> None:
        folder.mkdir(exist_ok=True)
        self.http = int(configuration.get("HttpPort") or free_port())
        self.port, self.ae_title = free_port(), "ORTHANC"
        (folder / "orthanc.json").write_text(json.dumps({
            "Name": "test", "StorageDirectory": str(folder / "db"), "IndexDirectory": str(folder / "db"),
            "HttpPort": self.http, "DicomPort": self.port, "DicomAet": self.ae_title, "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False, "DicomAlwaysAllowStore": True, "StableAge": 1, "ConcurrentJobs": 2,
            "Plugins": ["/usr/share/orthanc/plugins"], "DicomWeb": {"Enable": True}, **configuration,
        }))  # fmt: skip
        with (folder / "log").open("w") as log:
            self._process = subprocess.Popen(["Orthanc", str(folder / "orthanc.json")], stdout=log, stderr=log)
        wait_until(lambda: connects(self.http) and connects(self.port), "Orthanc")

    @property
    def url(self) -> str:
        """Its DICOMweb root."""
        return f"http://127.0.0.1:{self.http}/dicom-web"

    def stop(self) -> None:
        """Be gone."""
        self._process.terminate()
        self._process.wait()

    def ask(self, path: str, data: bytes | None = None) -> Any:
        """Answer of its REST interface."""
        return json.loads(get(f"http://127.0.0.1:{self.http}{path}", data)[1])

    def instances(self, **tags: str) -> list[dict[str, Any]]:
        """Main tags of the instances that match."""
        found = self.ask("/tools/find", json.dumps({"Level": "Series", "Query": tags, "Expand": True}).encode())
        return [self.ask(f"/instances/{uid}")["MainDicomTags"] for series in found for uid in series["Instances"]]


def get(url: str, data: bytes | None = None) -> tuple[int, str]:
    """Status and text of a page, past any proxy."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(url, data)
    try:
        with opener.open(request, timeout=PATIENCE) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def storescu(port: int, films: Iterable[Path], *options: str, ae_title: str = AE_TITLE) -> list[Path]:
    """Send films with DCMTK's storescu over one association; returns those that were acknowledged with success."""
    sent = list(films)
    command = ["storescu", "-v", "-aec", ae_title, *options, "127.0.0.1", str(port), *map(str, sent)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    answers = [line for line in (ran.stdout + ran.stderr).splitlines() if "Received Store Response" in line]
    return [film for film, answer in zip(sent, answers, strict=False) if "(Success)" in answer]


def connects(port: int) -> bool:
    """Whether somebody listens there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def made_films(folder: Path, seeds: Iterable[int], size: int = 96) -> Iterator[Path]:
    """Small phantoms as DX films, one a study."""
    from msloc_edge.train.phantom import generate, write_dicom

    folder.mkdir(exist_ok=True)
    for seed in seeds:
        path = folder / f"{seed}.dcm"
        if not path.exists():
            write_dicom(generate(seed, size), path)
        yield path
