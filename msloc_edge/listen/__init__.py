"""A listener for films: received over DICOM, localized, their objects sent on; what was acknowledged is never lost.

    received ── journalled ── acknowledged ── localized ── objects written ── sent to each node ── confirmed ── deleted

Every step can be repeated after a crash, and a receiver knows each object by its UID. docs/listen.md tells the whole.
Names are imported when they are first used: a configuration alone needs no network library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msloc_edge._lazy import names_of

if TYPE_CHECKING:
    from msloc_edge.listen.config import ListenConfig, read_config
    from msloc_edge.listen.service import Service

__all__ = ["ListenConfig", "Service", "read_config"]

__getattr__ = names_of(__name__, {"ListenConfig": "config", "read_config": "config", "Service": "service"})
