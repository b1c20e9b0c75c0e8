"""Films of an archive: found for a range of days (C-FIND), and sent by it to the running listener (C-MOVE).

What is pulled comes in by the same door as what is sent: kept, journalled, known by its UID. A film that the journal
knows is not asked for, so that a range that was interrupted goes on when it is pulled again.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date, datetime, timedelta

from pydicom import Dataset
from pydicom.uid import UID
from pynetdicom.association import Association

from msloc_edge.errors import ListenError
from msloc_edge.journal import Journal
from msloc_edge.listen.config import Archive, ListenConfig
from msloc_edge.listen.log import Log
from msloc_edge.listen.queue import RECEIVED
from msloc_edge.listen.send import application_entity
from msloc_edge.listen.tls import client_context

FIND = UID("1.2.840.10008.5.1.4.1.2.2.1")  # pynetdicom makes its names at run time: types of them cannot be checked
MOVE = UID("1.2.840.10008.5.1.4.1.2.2.2")
"""Study Root Query/Retrieve Information Model - FIND and MOVE (PS3.4 C.6.2)."""

_PENDING = (0xFF00, 0xFF01)
_AT_ONCE = 100
"""Films of one C-MOVE."""


def days_of(dates: str) -> list[date]:
    """List the days of a range such as "20260101-20260131", or of one day. Raises ValueError.

    >>> [str(day) for day in days_of("20260130-20260201")]
    ['2026-01-30', '2026-01-31', '2026-02-01']
    """
    first, _, last = dates.partition("-")
    begin, end = (datetime.strptime(day, "%Y%m%d").date() for day in (first, last or first))
    if end < begin or not len(first) == len(last or first) == len("YYYYMMDD"):
        raise ValueError(f"expected days of eight digits, the first before the last, got {dates}")
    return [begin + timedelta(number) for number in range((end - begin).days + 1)]


def pull(config: ListenConfig, archive: Archive, days: list[date], journal: Journal, log: Log) -> int:
    """Have the archive send the films of some days that the journal does not know, one day after the other.

    returns  the number of films that it could not send; they are asked for when the days are pulled again

    Raises ListenError: node_unreachable, node_refused, config_invalid for certificates.
    """
    client, failed = ArchiveClient(archive, config.receive.ae_title), 0
    for day in days:
        asked = lost = 0
        for series, films in _unknown_films(client, day, config.take.modalities, journal):
            wait_for_room(journal, config.limits.queue_films // 2, log)  # the rest is for films that come by themselves
            asked, lost = asked + len(films), lost + client.move(series, films)
        log.info("day pulled", day=day.isoformat(), asked=asked, failed=lost)
        failed += lost
    return failed


def _unknown_films(
    client: ArchiveClient, day: date, modalities: tuple[str, ...], journal: Journal
) -> Iterator[tuple[dict[str, str], list[str]]]:
    """Find a day's films of some modalities that the journal does not know: the keys of a series, UIDs of its films."""
    for study in client.find("STUDY", StudyDate=f"{day:%Y%m%d}", StudyInstanceUID=""):
        keys = {"StudyInstanceUID": study.StudyInstanceUID}
        for series in client.find("SERIES", **keys, SeriesInstanceUID="", Modality=""):
            if series.get("Modality") and series.Modality not in modalities:
                continue
            inside = {**keys, "SeriesInstanceUID": series.SeriesInstanceUID}
            films = [str(film.SOPInstanceUID) for film in client.find("IMAGE", **inside, SOPInstanceUID="")]
            unknown = [uid for uid in films if not journal.find(name=uid, limit=1)]
            for start in range(0, len(unknown), _AT_ONCE):
                yield inside, unknown[start : start + _AT_ONCE]


def wait_for_room(journal: Journal, max_films: int, log: Log, stalled_s: float = 600.0) -> None:
    """Wait until no more than `max_films` wait to be localized.

    Raises ListenError (node_busy) when none was localized for `stalled_s` seconds.
    """
    seen, since = 0, time.monotonic()
    while (waiting := journal.counts().get(RECEIVED, 0)) > max_films:
        if waiting != seen:
            log.info("waiting for room", waiting=waiting)
            seen, since = waiting, time.monotonic()
        elif time.monotonic() - since > stalled_s:
            raise ListenError(
                "node_busy", f"listener: {waiting} films wait, and none was localized lately; start it, and pull again"
            )
        time.sleep(1.0)


class ArchiveClient:
    """Asks an archive, over an association for each question.

    ae_title  our own, to which the archive sends

    Methods raise ListenError (node_unreachable, node_refused).
    """

    def __init__(self, archive: Archive, ae_title: str) -> None:
        self._archive = archive
        self._tls = (client_context(archive.tls), archive.host) if archive.tls else None
        self._ae = application_entity(archive, ae_title)
        for model in (FIND, MOVE):
            self._ae.add_requested_context(model)

    def find(self, level: str, **keys: str) -> list[Dataset]:
        """List the identifiers of a level that match (C-FIND)."""
        found: list[Dataset] = []
        with self._associated() as association:
            for status, identifier in association.send_c_find(_query(level, keys), FIND):
                if status.get("Status") in _PENDING and identifier is not None:
                    found.append(identifier)
                else:
                    _check_success(status)
        return found

    def move(self, series: Mapping[str, str], films: list[str]) -> int:
        """Have films of a series sent to us (C-MOVE); returns how many were not."""
        query = _query("IMAGE", {**series, "SOPInstanceUID": films})
        with self._associated() as association:
            for status, _ in association.send_c_move(query, self._ae.ae_title, MOVE):
                if status.get("Status") in _PENDING:
                    continue
                if failed := status.get("NumberOfFailedSuboperations"):
                    return int(failed)
                _check_success(status)
        return 0

    @contextmanager
    def _associated(self) -> Iterator[Association]:
        archive = self._archive
        association = self._ae.associate(archive.host, archive.port, ae_title=archive.ae_title, tls_args=self._tls)
        if not association.is_established:
            raise ListenError("node_unreachable", "archive: no association; check address, AE titles and TLS")
        try:
            yield association
        except ValueError as error:  # pynetdicom's, for a context that was not accepted
            raise ListenError(
                "node_refused", "archive: it allows no query or no retrieval; allow both there"
            ) from error
        finally:
            if association.is_established:
                association.release()


def _query(level: str, keys: Mapping[str, object]) -> Dataset:
    query = Dataset()
    query.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        setattr(query, keyword, value)
    return query


def _check_success(status: Dataset) -> None:
    """Raise ListenError for a final answer that is no success."""
    if "Status" not in status:
        raise ListenError("node_unreachable", "archive: no answer, or the connection was closed; pull again")
    if status.Status != 0x0000:
        raise ListenError(
            "node_refused",
            f"archive: refused with status {status.Status:04X}; check that it knows our AE title, "
            "and that the listener runs and has room",
        )
