"""Checks of models, folders and the DICOM port: whole, writable, free."""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import tempfile
from pathlib import Path

from msloc_edge._files import ENGINES, TEMPORARY, cache_folder
from msloc_edge.doctor.check import Check, Status, size
from msloc_edge.errors import MslocError

DICOM_PORT = 11112
"""The port that DICOM senders commonly use without privileges, and that `listen` takes."""


def check_models(model: str | None) -> list[Check]:
    """Check every model that ships or is installed, and the one that was named: each file against its hash."""
    from msloc_edge.bundle import DEFAULT_MODEL, SHIPPED, installed_models, shipped_models, store_folder

    again = "pip install --force-reinstall msloc-edge"
    names = dict.fromkeys((DEFAULT_MODEL, *shipped_models()))  # a default that is missing is a line, too
    checks = [_bundle(name, SHIPPED / name, again) for name in names]
    for name in installed_models():
        fix = f"msloc-edge models remove {name}  # and add it again"
        checks.append(_bundle(name, store_folder() / name, fix, "warning"))
    if model is not None:
        checks.append(
            _bundle("--model", model, "msloc-edge export bundle RUN FOLDER  # or copy the whole folder again")
        )
    return checks


def check_folders() -> list[Check]:
    """Check the cache, the plans in it, the current folder."""
    fix = "export MSLOC_CACHE=FOLDER  # one that you can write into"
    try:
        folder = cache_folder()
    except RuntimeError as error:  # a user without a home
        kept = [Check("places", "cache", "failing", str(error), fix)]
    else:
        kept = [_writable("cache", folder, "failing", fix), check_plans(folder / ENGINES)]
    return [*kept, _writable("current folder", Path(), "warning", "cd ~  # or another folder of yours")]


def check_ports() -> list[Check]:
    """Check the port that the command `listen` takes."""
    return [check_port(DICOM_PORT)]


def check_plans(folder: Path) -> Check:
    """Count the TensorRT plans in a folder, and what a crash left of others."""
    try:
        files = [(file, file.stat().st_size) for file in folder.rglob("*") if file.is_file()]
    except OSError as error:
        fix = shlex.join(["ls", "-lR", str(folder)])
        return Check("places", "plan cache", "warning", f"{folder} cannot be read: {error.strerror}", fix)
    torn = [file for file, length in files if file.match(TEMPORARY) or (file.match("*.plan") and not length)]
    whole = [length for file, length in files if file.match("*.plan") and length]
    found = f"{len(whole)} plan{'s' * (len(whole) != 1)}, {size(sum(whole))}"
    if torn:
        found += f"; {len(torn)} file{'s' * (len(torn) != 1)} not whole, unless a plan is being built now"
        return Check("places", "plan cache", "warning", found, shlex.join(["rm", *map(str, torn)]))
    return Check("places", "plan cache", "ok", found)


def check_port(number: int) -> Check:
    """Check whether a port can be bound on this machine."""
    with socket.socket() as listener:
        # as a server does: a connection that has just ended is not in the way, another server is
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", number))
        except OSError as error:
            found = f"{number} cannot be bound: {error.strerror}"
            return Check("places", "DICOM port", "warning", found, f"ss -ltnp 'sport = :{number}'  # shows who has it")
    return Check("places", "DICOM port", "ok", f"{number} is free")


def _bundle(name: str, model: str | Path, fix: str, otherwise: Status = "failing") -> Check:
    from msloc_edge.bundle import Bundle

    try:
        bundle = Bundle.open(model)
    except MslocError as error:
        return Check("models", name, otherwise, f"[{error.reason}] {error.message}", fix)
    except OSError as error:
        return Check("models", name, otherwise, f"cannot be read: {error}", fix)
    found = f"{bundle.name} {bundle.version}, {len(bundle.classes)} findings, every file is whole"
    return Check("models", name, "ok", found)


def _writable(name: str, folder: Path, otherwise: Status, fix: str) -> Check:
    """Write a file without a name: into the folder or, as long as it does not exist, where it would be made."""
    try:
        path = Path(os.path.abspath(folder))
        there = next(place for place in (path, *path.parents) if place.exists())
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(b"msloc-edge")
            file.flush()
        free = shutil.disk_usage(there).free
    except OSError as error:
        return Check("places", name, otherwise, f"{folder} cannot be written: {error.strerror}", fix)
    return Check("places", name, "ok", f"{path}, {size(free)} free")
