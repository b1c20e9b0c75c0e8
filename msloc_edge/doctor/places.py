"""Models, folders and the DICOM port: is what is needed whole, writable, free?"""

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
"""The port that DICOM senders commonly use without privileges."""


def models(model: str | None) -> list[Check]:
    """Every model that ships or is installed, and the one that was named; each file is compared with its hash."""
    from msloc_edge.bundle import DEFAULT_MODEL, SHIPPED, installed_models, shipped_models, store_folder

    again = "pip install --force-reinstall msloc-edge"
    names = dict.fromkeys((DEFAULT_MODEL, *shipped_models()))  # a default that is missing is a line, too
    checks = [_bundle(name, SHIPPED / name, again) for name in names]
    for name in installed_models():
        mend = f"msloc-edge models remove {name}  # and add it again"
        checks.append(_bundle(name, store_folder() / name, mend, "warning"))
    if model is not None:
        checks.append(
            _bundle("--model", model, "msloc-edge export CHECKPOINT FOLDER  # or copy the whole folder again")
        )
    return checks


def folders() -> list[Check]:
    """The cache, the engines in it, the current folder."""
    mend = "export MSLOC_CACHE=FOLDER  # one that you can write into"
    try:
        folder = cache_folder()
    except RuntimeError as error:  # a user without a home
        kept = [Check("places", "cache", "failing", str(error), mend)]
    else:
        kept = [_writable("cache", folder, "failing", mend), plans(folder / ENGINES)]
    return [*kept, _writable("current folder", Path(), "warning", "cd ~  # or another folder of yours")]


def ports() -> list[Check]:
    """The port that the command `listen` is going to take."""
    return [port(DICOM_PORT)]


def plans(folder: Path) -> Check:
    """How many engine plans there are, and what a crash left of others."""
    try:
        files = [(file, file.stat().st_size) for file in folder.rglob("*") if file.is_file()]
    except OSError as error:
        mend = shlex.join(["ls", "-lR", str(folder)])
        return Check("places", "engine cache", "warning", f"{folder} cannot be read: {error.strerror}", mend)
    torn = [file for file, length in files if file.match(TEMPORARY) or (file.match("*.plan") and not length)]
    whole = [length for file, length in files if file.match("*.plan") and length]
    found = f"{len(whole)} plan{'s' * (len(whole) != 1)}, {size(sum(whole))}"
    if torn:
        found += f"; {len(torn)} file{'s' * (len(torn) != 1)} not whole, unless an engine is being built now"
        return Check("places", "engine cache", "warning", found, shlex.join(["rm", *map(str, torn)]))
    return Check("places", "engine cache", "ok", found)


def port(number: int) -> Check:
    """Can the port be bound on this machine?"""
    with socket.socket() as listener:
        # as a server does: a connection that has just ended is not in the way, another server is
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", number))
        except OSError as error:
            found = f"{number} cannot be bound: {error.strerror}"
            return Check("places", "DICOM port", "warning", found, f"ss -ltnp 'sport = :{number}'  # shows who has it")
    return Check("places", "DICOM port", "ok", f"{number} is free")


def _bundle(name: str, model: str | Path, mend: str, otherwise: Status = "failing") -> Check:
    from msloc_edge.bundle import Bundle

    try:
        bundle = Bundle.open(model)
    except MslocError as error:
        return Check("models", name, otherwise, f"[{error.reason}] {error.message}", mend)
    except OSError as error:
        return Check("models", name, otherwise, f"cannot be read: {error}", mend)
    found = f"{bundle.name} {bundle.version}, {len(bundle.classes)} findings, every file is whole"
    return Check("models", name, "ok", found)


def _writable(name: str, folder: Path, otherwise: Status, mend: str) -> Check:
    """Write a file without a name: into the folder or, as long as it does not exist, where it would be made."""
    try:
        path = Path(os.path.abspath(folder))
        there = next(place for place in (path, *path.parents) if place.exists())
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(b"msloc-edge")
            file.flush()
        free = shutil.disk_usage(there).free
    except OSError as error:
        return Check("places", name, otherwise, f"{folder} cannot be written: {error.strerror}", mend)
    return Check("places", name, "ok", f"{path}, {size(free)} free")
