"""The user's own models: bundles from a folder, an archive or a URL, checked before anything has their name.

Everything happens in a hidden scratch folder inside the store. The last step is a rename, so that a model is there
whole or not at all, and nothing is left behind by an error or Ctrl-C.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException, HTTPMessage
from pathlib import Path
from typing import IO
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from msloc_edge import __version__
from msloc_edge._files import temporary_beside, writing
from msloc_edge.bundle.archive import ELSEWHERE, MAX_ARCHIVE, blocks, check_size, reading, save, unpack
from msloc_edge.bundle.bundle import (
    MANIFEST,
    MODEL_NAME,
    SHIPPED,
    Bundle,
    installed_models,
    sha256_file,
    shipped_models,
    store_folder,
)
from msloc_edge.bundle.signature import require_trusted
from msloc_edge.bundle.versions import RECORD, highest, record, recorded, require_no_rollback
from msloc_edge.errors import BundleError, MslocError, OutputError

TIMEOUT = 30.0
"""Seconds without a byte until a download counts as failed."""

Progress = Callable[[int, "int | None"], None]
"""Listener to a download: called with the bytes that have come, and all that will (None: unknown)."""


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """A model that this machine knows: opened and verified, or the error that says why it does not open."""

    name: str
    where: str  # "shipped", "installed", or "folder" for one that was named by its path
    path: Path
    opened: Bundle | MslocError


def known_models() -> list[Known]:
    """List all shipped and installed models, with those that do not open."""
    folders = [(SHIPPED / name, "shipped") for name in shipped_models()]
    folders += [(store_folder() / name, "installed") for name in installed_models()]
    return [Known(path.name, where, path, _open(path)) for path, where in folders]


def look_at(model: str) -> Known:
    """Open one model by name or folder; one that does not open is found, too."""
    opened = _open(model)
    path = opened.path if isinstance(opened, Bundle) else Path(model)
    homes = {SHIPPED: "shipped", store_folder(): "installed"}
    return Known(model, homes.get(path.parent, "folder"), path, opened)


def add_folder(folder: Path, name: str | None = None, replace: bool = False, allow_rollback: bool = False) -> Bundle:
    """Install a copy of a bundle's folder under `name`, by default its own.

    Raises BundleError: option_invalid, bundle_rollback, and what Bundle.open and require_trusted raise; OutputError:
    out_occupied, out_unwritable, disk_full.
    """

    def fill(fresh: Path) -> None:
        for file in sorted(folder.iterdir()):
            if file.is_file():
                with reading(file), file.open("rb") as content:
                    save(blocks(content), fresh / file.name)

    return _install(str(folder), fill, name, replace, allow_rollback)


def add_archive(
    archive: Path,
    sha256: str | None = None,
    name: str | None = None,
    replace: bool = False,
    allow_rollback: bool = False,
) -> Bundle:
    """Install the one bundle in a .zip, .tar.gz or .tar.xz file, whose hash is `sha256` if that is given.

    Raises BundleError: bundle_missing, bundle_hash, archive_refused, bundle_damaged, and what add_folder raises.
    """

    def fill(fresh: Path) -> None:
        _check_hash(archive, sha256, str(archive))
        unpack(archive, fresh, str(archive))

    return _install(str(archive), fill, name, replace, allow_rollback)


def add_url(
    url: str,
    sha256: str,
    name: str | None = None,
    replace: bool = False,
    allow_rollback: bool = False,
    progress: Progress | None = None,
) -> Bundle:
    """Install the one bundle in an archive at an https, http or file URL, checked against `sha256` before it is opened.

    Raises BundleError: download_failed, and what add_archive raises.
    """

    def fill(fresh: Path) -> None:
        archive = fresh.with_name("archive")
        _download(url, archive, progress or (lambda done, total: None))
        _check_hash(archive, sha256, url)
        unpack(archive, fresh, url)

    return _install(url, fill, name, replace, allow_rollback)


def remove(name: str) -> Path:
    """Delete an installed model; returns where it was. Raises BundleError: bundle_missing; OutputError."""
    installed = installed_models()
    if name not in installed:
        raise BundleError(
            "bundle_missing", f"{name}: expected one of the installed models ({', '.join(installed) or 'none'})"
        )
    path = store_folder() / name
    with _scratch() as scratch, writing(path, ELSEWHERE):
        path.rename(scratch / "old")  # at once, where deleting file by file would leave a damaged model for a while
    return path


def _open(model: str | Path) -> Bundle | MslocError:
    try:
        return Bundle.open(model)
    except MslocError as error:
        return error


def _install(
    source: str, fill: Callable[[Path], None], name: str | None, replace: bool, allow_rollback: bool
) -> Bundle:
    """Let `fill` write a bundle's files into a scratch folder, verify them there, then give them their name."""
    if name:
        _check_name(name, replace)  # at once, not after a long download
    with _scratch() as scratch:
        fresh, old = scratch / "bundle", scratch / "old"
        with writing(fresh, ELSEWHERE):
            fresh.mkdir()
        fill(fresh)
        try:
            bundle = Bundle.open(fresh)
            require_trusted(fresh, (fresh / MANIFEST).read_bytes())
        except BundleError as error:  # the scratch folder is gone when the user reads this
            raise BundleError(error.reason, error.message.replace(str(fresh), source)) from error
        name = name or bundle.name
        _check_name(name, replace)
        seen = _versions_seen(bundle.name)
        if not allow_rollback:
            require_no_rollback(bundle.name, bundle.version, seen)
        target = store_folder() / name
        with writing(target, ELSEWHERE):
            if replace and target.is_dir():
                target.rename(old)
            try:
                fresh.rename(target)
            except BaseException:
                if old.exists():
                    old.rename(target)
                raise
    with writing(store_folder() / RECORD, ELSEWHERE):
        record(store_folder(), bundle.name, highest([bundle.version, *seen]))
    return dataclasses.replace(bundle, path=target)


def _versions_seen(name: str) -> list[str]:
    """Versions of a model that are installed, also by hand, and the highest one that was."""
    opened = [_open(store_folder() / installed) for installed in installed_models()]
    versions = [bundle.version for bundle in opened if isinstance(bundle, Bundle) and bundle.name == name]
    return versions + [version for model, version in recorded(store_folder()).items() if model == name]


def _check_name(name: str, replace: bool) -> None:
    if not MODEL_NAME.fullmatch(name):
        raise BundleError(
            "option_invalid",
            f"expected a name of up to 64 letters, digits, dots, dashes and underscores that begins with a letter or "
            f"digit, got {name!r}; choose another --name",
        )
    if name in shipped_models():
        raise OutputError("out_occupied", f"{name}: is the name of a shipped model, which stays; choose another --name")
    if name in installed_models() and not replace:
        raise OutputError("out_occupied", f"{name}: is installed already; --replace it, or choose another --name")


def _check_hash(archive: Path, sha256: str | None, source: str) -> None:
    if sha256:
        with reading(archive):
            found = sha256_file(archive)
        if found != sha256.lower():
            raise BundleError(
                "bundle_hash",
                f"{source}: expected sha256 {sha256}, got {found}; it is another file: check the hash and the source",
            )


class _Redirects(HTTPRedirectHandler):
    """Follows a server to where it sends us by http or https, and from https by https alone."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        if urlsplit(newurl).scheme not in {"https", req.type}:
            raise HTTPError(req.full_url, code, f"and sends on to {newurl}, which is no {req.type}", headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _download(url: str, target: Path, progress: Progress) -> None:
    done = 0
    request = Request(url, headers={"User-Agent": f"msloc-edge/{__version__}"})
    try:
        with build_opener(_Redirects).open(request, timeout=TIMEOUT) as answer:
            length = answer.headers.get("Content-Length")
            total = int(length) if length else None
            check_size(total or 0, MAX_ARCHIVE, url)

            def coming() -> Iterator[bytes]:
                nonlocal done
                for block in blocks(answer):
                    done += len(block)
                    check_size(done, MAX_ARCHIVE, url)
                    progress(done, total)
                    yield block

            save(coming(), target)
    except HTTPError as error:
        error.close()
        raise BundleError(
            "download_failed", f"{url}: the server answers {error.code} {error.reason}; check the address"
        ) from error
    except (OSError, HTTPException, ValueError) as error:
        why = getattr(error, "reason", None) or error
        raise BundleError(
            "download_failed", f"{url}: cannot be fetched ({why}); check the address and the network"
        ) from error
    if total is not None and done < total:
        raise BundleError("download_failed", f"{url}: ended after {done} of {total} bytes; try again")


@contextmanager
def _scratch() -> Iterator[Path]:
    """A hidden folder inside the store, so that a rename out of it is atomic; gone afterwards, with all in it."""
    folder = temporary_beside(store_folder() / "scratch")
    try:
        with writing(folder, ELSEWHERE):
            folder.mkdir(parents=True)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
