"""The way in: a film that came is checked, kept on disk, journalled; only then may it be acknowledged."""

from __future__ import annotations

import hashlib
import threading

from pydicom.uid import UID

from msloc_edge.errors import InputError, MslocError
from msloc_edge.imaging.dicom.header import Header, is_code, read_header
from msloc_edge.journal import Journal
from msloc_edge.listen.config import Limits, Take
from msloc_edge.listen.log import Log
from msloc_edge.listen.metrics import Metrics
from msloc_edge.listen.queue import PASSED_OVER, RECEIVED
from msloc_edge.listen.spool import Spool

OUT_OF_RESOURCES, WRONG_DATA_SET, CANNOT_UNDERSTAND = 0xA700, 0xA900, 0xC000
"""C-STORE statuses, PS3.4 table B.2-1."""


class Refused(Exception):  # noqa: N818 - an answer, no fault
    """A film that is not taken; its sender is told so by `status`, and keeps it."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class Inbox:
    """Takes films from any thread; each is on disk and in the journal, once, when `take_film` returns."""

    def __init__(self, spool: Spool, journal: Journal, take: Take, limits: Limits, metrics: Metrics, log: Log) -> None:
        self._spool, self._journal, self._take, self._limits = spool, journal, take, limits
        self._metrics, self._log = metrics, log
        self._lock = threading.Lock()

    def take_film(self, data: bytes, uid: str, sender: str) -> None:
        """Keep the film of a DICOM file, which its sender calls `uid`.

        A film that is known already is not kept again, one that the configuration does not name is passed over: both
        are acknowledged. Raises Refused: A700 without room, A900 for another film than was announced, or one that
        names no study, C000 for a header that cannot be read.
        """
        try:
            outcome = self._keep(data, uid, sender)
        except Refused:
            self._metrics.films.labels("refused").inc()
            raise
        self._metrics.films.labels(outcome).inc()
        self._log.info(f"film {outcome}", film=uid, sender=sender, bytes=len(data))

    def shortages(self, size: int = 0) -> list[str]:
        """List what there is no room in, for a film of `size` bytes: the queue, the disk."""
        found = []
        if self._journal.counts().get(RECEIVED, 0) >= self._limits.queue_films:
            found.append("the queue is full")
        if self._spool.free_bytes - size < self._limits.free_disk_mb << 20:
            found.append("the disk is full")
        return found

    def _keep(self, data: bytes, uid: str, sender: str) -> str:
        header = _read(data, uid)
        content = hashlib.sha256(data).hexdigest()
        try:
            if known := self._journal.find(name=uid, limit=1):
                return "known" if known[0].content == content else "known with other content"
            if not self._wanted(header):
                self._journal.add(uid, content, PASSED_OVER, {"sender": sender})
                return PASSED_OVER
            if short := self.shortages(len(data)):
                raise Refused(OUT_OF_RESOURCES, short[0])
            written = self._spool.write_unnamed(data)
            with self._lock:  # of two that send one film at the same time, one is the first
                if self._journal.find(name=uid, limit=1):
                    written.unlink()
                    return "known"
                self._spool.name_film(written, uid)
                self._journal.add(uid, content, RECEIVED, {"sender": sender})
            return RECEIVED
        except (OSError, MslocError) as error:
            why = error.reason if isinstance(error, MslocError) else error.strerror
            raise Refused(OUT_OF_RESOURCES, f"cannot be kept: {why}") from error

    def _wanted(self, header: Header) -> bool:
        modality, part = _code(header, "Modality"), _code(header, "BodyPartExamined")
        if modality and modality not in self._take.modalities:
            return False
        if not part:
            return self._take.without_body_part
        parts = [wanted.upper() for wanted in self._take.body_parts]
        return not parts or any(wanted in part for wanted in parts)


def _code(header: Header, keyword: str) -> str:
    """Read a code string; "" where there is none, or none that is legal: the worker finds out what it is worth."""
    try:
        text = header.text(keyword)
    except InputError:
        return ""
    return text if is_code(text) else ""


def _read(data: bytes, uid: str) -> Header:
    """Read the header of the film that was announced as `uid`."""
    try:
        header = read_header(data, uid)
        uids = header.uids
    except Exception as error:  # a damaged header can fail anywhere in pydicom, whose words may hold names
        raise Refused(CANNOT_UNDERSTAND, "its header cannot be read") from error
    if uids is None:
        raise Refused(WRONG_DATA_SET, "it lacks a legal UID of its own, its series or its study")
    if uids.sop_instance_uid != UID(uid):
        raise Refused(WRONG_DATA_SET, "it is not the film that was announced")
    return header
