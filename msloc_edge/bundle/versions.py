"""Guard against rollback: the highest version of each model that was ever installed, remembered when it is gone.

An old bundle stays validly signed for ever, with all that was found wrong with it since. What counts is the name in the
manifest, which is signed; the name that a model is installed under is the user's, and would be a way around.

A version is whole numbers between dots: 1.10 comes after 1.9, and 1.0 is 1. Versions of any other form have no order.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from msloc_edge._files import atomic_write
from msloc_edge.errors import BundleError

RECORD = ".versions.json"  # hidden, so that no model can have its name
SCHEMA = "msloc-edge/versions/1"

_DOTTED = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})*")


def recorded(store: Path) -> dict[str, str]:
    """Highest version of each model that was installed in the folder `store`, by the name in its manifest.

    Raises BundleError (bundle_rollback) when the record is damaged: what was here cannot be told any more.
    """
    file = store / RECORD
    try:
        record = json.loads(file.read_bytes())
        versions = record["versions"]
        if record["schema"] != SCHEMA or not all(isinstance(version, str) for version in versions.values()):
            raise ValueError
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BundleError(
            "bundle_rollback",
            f"{file}: expected a {SCHEMA}, which remembers the versions that were installed; restore it, or remove it "
            "to forget them",
        ) from error
    return dict(versions)


def record(store: Path, name: str, version: str) -> None:
    """Remember the highest version of a model. Raises BundleError (bundle_rollback), OSError."""
    versions = {**recorded(store), name: version}
    content = {"schema": SCHEMA, "versions": dict(sorted(versions.items()))}
    atomic_write(store / RECORD, json.dumps(content, indent=1).encode() + b"\n")


def require_no_rollback(name: str, version: str, seen: Sequence[str]) -> None:
    """Refuse a version that is older than the highest one `seen`, or that cannot be compared with it.

    Raises BundleError: bundle_rollback.
    """
    if not seen or version == (last := highest(seen)):
        return
    new, old = _numbers(version), _numbers(last)
    if new is None or old is None:
        raise BundleError(
            "bundle_rollback",
            f"{name!r}: expected versions like 1.10.2, got {version!r} after {last!r}, which have no order; "
            "--allow-rollback if this one is wanted",
        )
    if new < old:
        raise BundleError(
            "bundle_rollback",
            f"{name!r}: expected version {last} or later, which was here already, got {version}; --allow-rollback if "
            "the older one is wanted",
        )


def highest(versions: Sequence[str]) -> str:
    """The highest of some versions, the first of equals; one without an order is below all that have one.

    >>> highest(["1.9", "1.10", "beta"])
    '1.10'
    """
    return max(versions, key=lambda version: _numbers(version) or ())


def _numbers(version: str) -> tuple[int, ...] | None:
    """1.10.0 -> (1, 10), so that tuples are ordered as versions are; None for a version of another form."""
    if not _DOTTED.fullmatch(version):
        return None
    parts = [int(part) for part in version.split(".")]
    while parts and not parts[-1]:
        parts.pop()
    return tuple(parts)
