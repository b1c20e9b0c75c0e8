"""A plan, its sidecar, and whether it may be handed to the library: deserialising runs what a plan says.

A plan begins with a tag of four bytes; bytes 24 to 27 are major, minor, patch and build of the version that wrote it.
For TensorRT ("ftrt") both are what trtexec reads (--getPlanVersionOnly); for TensorRT-RTX ("vtrt") they were seen in
engines of 1.7. TensorRT may begin its version-compatible plans with "vtrt", too: that was not verified, and is taken.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from msloc_edge.backends.tensorrt.key import Key
from msloc_edge.backends.tensorrt.library import TENSORRT, TENSORRT_RTX, release

SCHEMA = "msloc-edge/engine/1"
SIDECAR = ".json"
"""Suffix of the sidecar FILE.json, which has what is known of FILE: JSON before the plan would break other tools."""

TAGS = {library.name: library.tags for library in (TENSORRT, TENSORRT_RTX)}
VERSION_AT = 24
"""Offset of the version, of which three parts are compared: not every TensorRT tells its build, which may not fit a
byte."""

AMPERE = 80
"""The oldest device, as an `sm`, of a hardware-compatible plan; TensorRT's level is AMPERE_PLUS."""

ACROSS_MAJORS = {(10, 11)}
"""Major versions of which the later takes version-compatible plans of the earlier (NVIDIA's support matrix of 11.4)."""


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """A serialised engine.

    data     the bytes that the library takes
    key      what it was built for
    seconds  that building took
    facts    what else is to be remembered, such as the plugin that it needs, and what it is compatible with
    """

    data: bytes
    key: Key
    seconds: float = 0.0
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def compatible(self) -> bool:
        """Whether it was built for other versions or devices, too, which makes it slower."""
        return bool(self.facts.get("version_compatible") or self.facts.get("hardware_compatible"))

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


def serves(built: Key, facts: Mapping[str, Any], wanted: Key) -> bool:
    """Tell whether a plan takes single films of this model in this precision, where `wanted` is to run: on the GPU, or
    on that core of the accelerator.

    facts  of the plan: a version-compatible one is taken by later versions, a hardware-compatible one by other devices
    """
    like = replace(built, version=wanted.version, sm=wanted.sm, graph=wanted.graph, batch=wanted.batch)
    version = built.version == wanted.version or (facts.get("version_compatible") and _later(built, wanted))
    device = built.sm == wanted.sm or (facts.get("hardware_compatible") and min(built.sm, wanted.sm) >= AMPERE)
    return like == wanted and built.dla == wanted.dla and built.batch.least == 1 and bool(version and device)


def _later(built: Key, wanted: Key) -> bool:
    before, now = release(built.version), release(wanted.version)
    return before <= now and (before[0] == now[0] or (before[0], now[0]) in ACROSS_MAJORS)


class RefusedError(Exception):
    """A plan that must not be deserialised; `str(error)` is the one word of why, and goes into its new name."""


def read_plan(data: bytes, sidecar: bytes | None, file: str) -> Plan:
    """Read a plan of the cache, by the name of its file.

    Raises RefusedError: sidecar (none, or not one of ours), key (built for something else), size, header (not a plan of
    this library), version (of another version of it), hash.
    """
    try:
        content = _content(sidecar)
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


def sidecar_serves(sidecar: bytes | None, wanted: Key) -> bool:
    """Tell what `serves` does of a plan whose sidecar alone has been read."""
    try:
        content = _content(sidecar)
        return serves(Key.from_dict(content["key"]), dict(content["facts"]), wanted)
    except (ValueError, KeyError, TypeError):
        return False


def _content(sidecar: bytes | None) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(sidecar or b"")
    if content["schema"] != SCHEMA:
        raise ValueError(content["schema"])
    return content
