"""The end of the way: what every node has confirmed is deleted when its time is over."""

from __future__ import annotations

import time

from msloc_edge.journal import Item, Journal
from msloc_edge.listen.config import Keep
from msloc_edge.listen.log import Log
from msloc_edge.listen.queue import CONFIRMED, DELETED, PASSED_OVER, is_delivery
from msloc_edge.listen.spool import Spool

_AT_ONCE = 100


class Keeper:
    """Deletes files, then records, as the configuration allows."""

    def __init__(self, keep: Keep, spool: Spool, journal: Journal, log: Log) -> None:
        self._keep, self._spool, self._journal, self._log = keep, spool, journal, log

    def work(self) -> bool:
        """Delete what is over; False, since nothing is urgent."""
        for film in self._over(CONFIRMED, self._keep.files_hours * 3600):
            self._delete(film)
        for step in (DELETED, PASSED_OVER):
            for film in self._over(step, self._keep.records_days * 86400):
                self._journal.forget(film)
        return False

    def _over(self, step: str, seconds: float) -> list[Item]:
        """List items that did `step` so long ago."""
        limit = time.time() - seconds
        return [item for item in self._journal.find(step=step, limit=_AT_ONCE) if (item.due or 0) <= limit]

    def _delete(self, film: Item) -> None:
        self._spool.remove_objects(film.name)
        self._spool.remove_film(film.name)
        for item in self._journal.find(content=film.content):
            if is_delivery(item):
                self._journal.forget(item)
        self._journal.advance(film, DELETED)
        self._log.info("film deleted", film=film.name)
