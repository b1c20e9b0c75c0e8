"""A plan, its sidecar, and whether it may be handed to the library: deserialising runs what a plan says.

A plan begins with a tag of four bytes; bytes 24 to 27 are major, minor, patch and build of the version that wrote it.
For TensorRT ("ftrt") both are what trtexec reads (--getPlanVersionOnly); for TensorRT-RTX ("vtrt") they were seen in
engines of 1.7. TensorRT may begin its version-compatible plans with "vtrt", too: that was not verified, and is taken.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from msloc_edge.backends.tensorrt.key import Key
from msloc_edge.backends.tensorrt.library import TENSORRT, TENSORRT_RTX

SCHEMA = "msloc-edge/engine/1"
SIDECAR = ".json"
"""Suffix of the sidecar FILE.json, which has what is known of FILE: JSON before the plan would break other tools."""

TAGS = {library.name: library.tags for library in (TENSORRT, TENSORRT_RTX)}
VERSION_AT = 24
"""Offset of the version, of which three parts are compared: not every TensorRT tells its build, which may not fit a
byte."""


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """A serialised engine.

    data     the bytes that the library takes
    key      what it was built for
    seconds  that building took
    facts    what else is to be remembered, such as the plugin that it needs
    """

    data: bytes
    key: Key
    seconds: float = 0.0
    facts: Mapping[str, Any] = field(default_factory=dict)

    def sidecar(self) -> bytes:
        """JSON that belongs beside it."""
        content = {
            "schema": SCHEMA,
            "key": self.key.to_dict(),
            "sha256": hashlib.sha256(self.data).hexdigest(),
            "bytes": len(self.data),
            "build_seconds": round(self.seconds, 3),
            "facts": dict(self.facts),
        }
        return (json.dumps(content, indent=1) + "\n").encode()


class RefusedError(Exception):
    """A plan that must not be deserialised; `str(error)` is the one word of why, and goes into its new name."""


def read_plan(data: bytes, sidecar: bytes | None, file: str) -> Plan:
    """Read a plan of the cache, by the name of its file.

    Raises RefusedError: sidecar (none, or not one of ours), key (built for something else), size, header (not a plan of
    this library), version (of another version of it), hash.
    """
    try:
        content = json.loads(sidecar or b"")
        if content["schema"] != SCHEMA:
            raise ValueError(content["schema"])
        key, size, sha256 = Key.from_dict(content["key"]), int(content["bytes"]), str(content["sha256"])
        plan = Plan(data, key, float(content["build_seconds"]), facts=dict(content["facts"]))
    except (ValueError, KeyError, TypeError) as error:
        raise RefusedError("sidecar") from error
    if key.file != file or key.flavour not in TAGS:
        raise RefusedError("key")
    if len(data) != size or size < VERSION_AT + 3:
        raise RefusedError("size")
    if not data.startswith(TAGS[key.flavour]):
        raise RefusedError("header")
    if ".".join(map(str, data[VERSION_AT : VERSION_AT + 3])) != ".".join(key.version.split(".")[:3]):
        raise RefusedError("version")
    if hashlib.sha256(data).hexdigest() != sha256:
        raise RefusedError("hash")
    return plan
