"""A log of JSON lines. UIDs, AE titles and reasons stand in it; nothing else of a film's header ever does."""

from __future__ import annotations

import contextlib
import json
import logging
import threading
from datetime import datetime, timezone
from typing import IO, Any


class Log:
    """Writes a line for each event: {"time", "level", "event", and its facts}. A reader that has gone is no error."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def info(self, event: str, **facts: Any) -> None:
        """Log what is as it should be."""
        self._write("info", event, facts)

    def warning(self, event: str, **facts: Any) -> None:
        """Log what somebody may have to look at."""
        self._write("warning", event, facts)

    def alert(self, event: str, **facts: Any) -> None:
        """Log what somebody has to look at."""
        self._write("alert", event, facts)

    def _write(self, level: str, event: str, facts: dict[str, Any]) -> None:
        time = datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line = json.dumps({"time": time, "level": level, "event": event, **facts})
        with self._lock, contextlib.suppress(OSError, ValueError):
            self._stream.write(line + "\n")
            self._stream.flush()


def silence_libraries() -> None:
    """Keep the logs of the network libraries out of ours: they quote headers, and addresses of patients' films."""
    for name in ("pynetdicom", "pydicom", "dicomweb_client", "urllib3"):
        logger = logging.getLogger(name)
        logger.propagate, logger.disabled = False, True
        logger.handlers = [logging.NullHandler()]
