"""The engine cache: what is not for this machine is refused unopened; builders that race or are killed do no harm."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from msloc_edge._files import ENGINES, TEMPORARY
from msloc_edge.backends.tensorrt.cache import Cache
from msloc_edge.backends.tensorrt.key import Batch, Key
from msloc_edge.backends.tensorrt.library import TENSORRT, TENSORRT_RTX
from msloc_edge.backends.tensorrt.plan import Plan
from msloc_edge.doctor import places
from msloc_edge.errors import BackendError, OutputError

KEY = Key("ab" * 32, "tensorrt", "10.3.0", 87, "fp32", "network", Batch())


def plan(
    key: Key = KEY, tag: bytes = b"ftrt", version: tuple[int, ...] = (10, 3, 0, 26), body: bytes = b"layers"
) -> Plan:
    """With the header of a TensorRT plan."""
    return Plan(tag + bytes(20) + bytes(version) + body, key, 1.5, {"plugin": "plain"})


def never() -> Plan:
    raise AssertionError("it is in the cache")


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / ENGINES)


def test_it_is_where_doctor_looks(cache: Cache, own_cache: Path) -> None:
    assert Cache().folder == own_cache / ENGINES
    cache.put(plan())
    assert places.check_plans(cache.folder).found == "1 plan, 34 bytes"


def test_a_plan_is_built_once(cache: Cache) -> None:
    assert cache.find(KEY) is None
    assert not cache.folder.exists()
    assert cache.get(KEY, plan).data == plan().data
    found = cache.get(KEY, never)
    assert (found.data, found.key, found.seconds, found.facts) == (plan().data, KEY, 1.5, {"plugin": "plain"})
    name = "abababababababab-tensorrt-10.3.0-sm87-fp32-network-1.1.8.plan"
    assert {file.name for file in cache.folder.iterdir()} == {name, f"{name}.json", f"{name}.lock"}
    content = json.loads((cache.folder / f"{name}.json").read_text())
    assert content == {
        "schema": "msloc-edge/engine/1",
        "key": {**KEY.to_dict()},
        "sha256": hashlib.sha256(plan().data).hexdigest(),
        "bytes": 34,
        "build_seconds": 1.5,
        "facts": {"plugin": "plain"},
    }


@pytest.mark.parametrize(
    "change",
    [
        {"bundle": "cd" * 32},
        {"flavour": "tensorrt_rtx"},
        {"version": "10.3.1"},
        {"sm": 86},
        {"precision": "fp16"},
        {"graph": "heatmap"},
        {"batch": Batch(1, 1, 4)},
    ],
)
def test_every_part_of_the_key_names_another_plan(cache: Cache, change: dict) -> None:
    cache.put(plan())
    other = replace(KEY, **change)
    assert other.file != KEY.file
    assert cache.find(other) is None


def test_an_engine_for_every_device() -> None:
    assert "-sm_any-" in replace(KEY, flavour="tensorrt_rtx", sm=0).file


def edit(**entries: object) -> Callable[[Path], None]:
    """Writes entries into the sidecar."""

    def change(file: Path) -> None:
        sidecar = file.with_name(f"{file.name}.json")
        sidecar.write_text(json.dumps(json.loads(sidecar.read_text()) | entries))

    return change


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda file: file.with_name(f"{file.name}.json").unlink(), "sidecar"),
        (lambda file: file.with_name(f"{file.name}.json").write_text("{"), "sidecar"),
        (edit(schema="msloc-edge/engine/0"), "sidecar"),
        (edit(key=None), "sidecar"),
        (edit(key={**KEY.to_dict(), "novelty": 1}), "sidecar"),
        (edit(bytes="many"), "sidecar"),
        (edit(facts=None), "sidecar"),
        (edit(key={**KEY.to_dict(), "sm": 86}), "key"),
        (edit(key={**KEY.to_dict(), "flavour": "tensorflow"}), "key"),
        (lambda file: file.write_bytes(file.read_bytes()[:-1]), "size"),
        (lambda file: file.write_bytes(b""), "size"),
        (flip, "hash"),
    ],
)
def test_what_is_no_plan_for_this_machine(cache: Cache, damage: Callable[[Path], None], why: str) -> None:
    cache.put(plan())
    damage(cache.folder / KEY.file)
    damaged = (cache.folder / KEY.file).read_bytes()
    assert cache.get(KEY, plan).data == plan().data
    assert (cache.folder / f"{KEY.file}.refused-{why}").read_bytes() == damaged
    assert cache.get(KEY, never).data == plan().data
    assert places.check_plans(cache.folder).found.startswith("1 plan,")


@pytest.mark.parametrize(
    ("other", "why"),
    [
        (plan(tag=b"\x08\x08ab"), "header"),
        (plan(tag=b"ptrt"), "header"),
        (plan(tag=b'{"na'), "header"),
        (plan(version=(10, 4, 0, 26)), "version"),
        (plan(version=(8, 6, 1, 6)), "version"),
        (Plan(b"ftrt", KEY), "size"),
    ],
)
def test_the_header_is_read_before_the_library_sees_it(cache: Cache, other: Plan, why: str) -> None:
    """Also where sidecar and hash are right: a file that another program wrote in our name."""
    cache.put(other)
    assert cache.find(KEY) is None
    assert (cache.folder / f"{KEY.file}.refused-{why}").is_file()


def test_a_version_whose_build_is_not_told_or_does_not_fit_a_byte(cache: Cache) -> None:
    for version in ("10.3.0", "10.3.0.26", "10.3.0.1026"):
        key = replace(KEY, version=version)
        cache.put(plan(key))
        assert cache.find(key) is not None


def test_maps_that_nobody_asked_for_come_last(cache: Cache) -> None:
    """An engine with heatmaps writes and copies all of them; then the largest batch; fixed batches are for others."""
    assert cache.find_any(KEY) is None
    small, large = replace(KEY, batch=Batch(1, 1, 2)), replace(KEY, batch=Batch(1, 4, 16))
    heatmap, fixed = replace(KEY, graph="heatmap"), replace(KEY, batch=Batch(32, 32, 32))
    for stored, expected in ((heatmap, heatmap), (small, small), (large, large), (fixed, large)):
        cache.put(plan(stored))
        found = cache.find_any(KEY)
        assert found is not None
        assert found.key == expected
    assert cache.find_any(replace(KEY, precision="fp16")) is None
    assert cache.find_any(replace(KEY, bundle=KEY.bundle[:16] + "0" * 48)) is None, "a name is not a hash"


@pytest.mark.parametrize(
    ("built", "facts", "found"),
    [
        ({"version": "10.2.0"}, {}, False),
        ({"version": "10.2.0"}, {"version_compatible": True}, True),
        ({"version": "10.4.0"}, {"version_compatible": True}, False),
        ({"version": "9.3.0"}, {"version_compatible": True}, False),
        ({"version": "10.2.0"}, {"hardware_compatible": True}, False),
        ({"sm": 86}, {}, False),
        ({"sm": 86}, {"hardware_compatible": True}, True),
        ({"sm": 75}, {"hardware_compatible": True}, False),
        ({"sm": 86}, {"version_compatible": True}, False),
        ({"version": "10.2.0", "sm": 86}, {"version_compatible": True, "hardware_compatible": True}, True),
        ({"precision": "fp16"}, {"version_compatible": True, "hardware_compatible": True}, False),
        ({"bundle": KEY.bundle[:16] + "0" * 48}, {"version_compatible": True, "hardware_compatible": True}, False),
    ],
)
def test_a_compatible_plan_serves_elsewhere(
    cache: Cache, built: dict[str, Any], facts: dict[str, Any], found: bool
) -> None:
    """As TensorRT takes it: a later version, another device from Ampere on. Others' own plans stay where they are."""
    key = replace(KEY, **built)
    version = tuple(map(int, key.version.split(".")))
    cache.put(replace(plan(key, version=(*version, 1)), facts=facts))
    taken = cache.find_any(KEY)
    assert (taken.key if taken else None) == (key if found else None)
    assert (cache.folder / key.file).is_file()
    cache.put(plan())
    own = cache.find_any(KEY)
    assert own is not None
    assert own.key == KEY, "its own is the faster one"


def test_a_compatible_plan_crosses_from_10_to_11(cache: Cache) -> None:
    cache.put(replace(plan(), facts={"version_compatible": True}))
    assert cache.find_any(replace(KEY, version="11.1.0.106")) is not None
    assert cache.find_any(replace(KEY, version="12.0.0.1")) is None


def test_the_kernels_of_a_plan_are_kept_beside_it(cache: Cache) -> None:
    """Under the plan's lock; what cannot be written is no error, as it only saves time."""
    kept = cache.kernels(KEY, 89)
    assert kept.read() == b""
    kept.write(b"one")
    assert cache.kernels(KEY, 89).read() == b"one"
    assert cache.kernels(KEY, 86).read() == b""
    assert {file.name for file in cache.folder.iterdir()} == {f"{KEY.file}.sm89.kernels", f"{KEY.file}.lock"}
    with kept.lock():
        writer = threading.Thread(target=kept.write, args=(b"two",))
        writer.start()
        writer.join(0.5)
        assert kept.read() == b"one", "it waits for the lock"
    writer.join()
    assert kept.read() == b"two"
    Cache(cache.folder / f"{KEY.file}.lock").kernels(KEY, 89).write(b"three")


def test_what_the_library_refuses_is_moved_aside(cache: Cache) -> None:
    cache.put(plan())
    cache.refuse(KEY, "deserialise")
    assert cache.find(KEY) is None
    assert (cache.folder / f"{KEY.file}.refused-deserialise").is_file()


def test_a_build_that_fails_leaves_nothing(cache: Cache) -> None:
    def fail() -> Plan:
        raise BackendError("build_failed", "out of memory")

    with pytest.raises(BackendError, match="out of memory"):
        cache.get(KEY, fail)
    assert [file.suffix for file in cache.folder.iterdir()] == [".lock"]
    assert cache.get(KEY, plan).data == plan().data


@pytest.mark.parametrize("library", [TENSORRT, TENSORRT_RTX])
def test_times_are_kept_beside_the_plans(cache: Cache, library: object) -> None:
    assert cache.timing(library, "10.3.0", 87).parent == cache.folder  # type: ignore[arg-type]


# Processes

WORKER = """
import os, sys, time
from pathlib import Path
from msloc_edge.backends.tensorrt.cache import Cache
from msloc_edge.backends.tensorrt.key import Batch, Key
from msloc_edge.backends.tensorrt.plan import Plan

folder, calls, until = (Path(argument) for argument in sys.argv[1:4])
key = Key("ab" * 32, "tensorrt", "10.3.0", 87, "fp32", "network", Batch())

def hang(*ignored):
    print("there", flush=True)
    time.sleep(100)

def build():
    with open(calls, "a") as file:
        file.write(f"{os.getpid()}\\n")
    print("building", flush=True)
    while not until.exists():
        time.sleep(0.01)
    return Plan(b"ftrt" + bytes(20) + bytes([10, 3, 0, 26]) + b"layers" * 1000, key)

at, replace = sys.argv[4], os.replace
if at == "write":
    os.fsync = hang
if at == "rename":
    os.replace = lambda source, target: hang() if target.name == key.file else replace(source, target)
print(len(Cache(folder).get(key, build).data), flush=True)
"""


@pytest.fixture
def worker(tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """Starts a process that gets the plan, whose build takes until the file `until` is there."""

    def start(at: str = "") -> subprocess.Popen[str]:
        arguments = [tmp_path / ENGINES, tmp_path / "calls", tmp_path / "until", at]
        command = [sys.executable, "-c", WORKER, *arguments]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    return start


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline().strip()


def test_processes_that_race_build_once(worker: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> None:
    first = worker()
    assert said(first) == "building"
    others = [worker() for _ in range(3)]
    for other in others:  # they say on stderr that they wait
        assert other.stderr
        assert "another process builds this engine; waiting for it" in other.stderr.readline()
    (tmp_path / "until").touch()
    for process in (first, *others):
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out.strip()) == (0, "6028"), err
    assert (tmp_path / "calls").read_text().splitlines() == [str(first.pid)]


def test_one_that_waits_builds_when_the_builder_is_killed(
    worker: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    first = worker()
    assert said(first) == "building"
    second = worker()
    assert second.stderr
    second.stderr.readline()
    first.send_signal(signal.SIGKILL)
    assert said(second) == "building"
    (tmp_path / "until").touch()
    assert said(second) == "6028"
    for process in (first, second):
        process.communicate(timeout=60)
    assert len((tmp_path / "calls").read_text().splitlines()) == 2


@pytest.mark.parametrize("at", ["write", "rename"])
def test_killed_in_the_middle_nothing_is_half_written(
    worker: Callable[..., subprocess.Popen[str]], tmp_path: Path, cache: Cache, at: str
) -> None:
    (tmp_path / "until").touch()
    process = worker(at)
    assert [said(process), said(process)] == ["building", "there"]
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert list(cache.folder.glob(TEMPORARY)), "it was killed in the middle"
    assert places.check_plans(cache.folder).status == "warning"
    assert cache.find(KEY) is None
    assert cache.get(KEY, plan).data == plan().data
    assert not list(cache.folder.glob(TEMPORARY))
    assert not list(cache.folder.glob("*.refused-*"))
    assert places.check_plans(cache.folder).status == "ok"


def test_who_waits_can_be_stopped(worker: Callable[..., subprocess.Popen[str]], cache: Cache) -> None:
    process = worker()
    assert said(process) == "building"
    cancelled = threading.Event()
    cancelled.set()
    with pytest.raises(BackendError, match="stopped while another process builds it"):
        cache.get(KEY, never, cancelled)
    process.kill()
    process.communicate(timeout=60)


def test_a_file_system_without_locks(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(handle: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(OutputError, match="cannot be used: No locks available; set MSLOC_CACHE") as caught:
        cache.get(KEY, plan)
    assert caught.value.reason == "out_unwritable"


def test_a_child_of_the_builder_does_not_keep_the_lock(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    """A forked worker has all handles of its parent; `dup` gives it the same lock."""
    handles = []
    take = Cache._take

    def forked(self: Cache, handle: int, name: str, cancelled: threading.Event | None) -> None:
        take(self, handle, name, cancelled)
        handles.append(os.dup(handle))

    monkeypatch.setattr(Cache, "_take", forked)
    stop = threading.Event()
    stop.set()  # who waits gives up at once
    cache.get(KEY, plan, stop)
    (cache.folder / KEY.file).unlink()
    assert cache.get(KEY, plan, stop).data == plan().data
    for handle in handles:
        os.close(handle)


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cache = Cache(tmp_path / "file" / ENGINES)
    for ask in (lambda: cache.get(KEY, plan), lambda: cache.put(plan()), lambda: cache.find(KEY)):
        with pytest.raises(OutputError, match="cannot be used: Not a directory; set MSLOC_CACHE") as caught:
            ask()
        assert caught.value.reason == "out_unwritable"
