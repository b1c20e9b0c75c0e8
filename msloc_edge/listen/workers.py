"""The middle of the way: films from the journal are localized, their objects written, and routed to the nodes."""

from __future__ import annotations

import time
from collections.abc import Callable

from msloc_edge.errors import InputError, InternalError, MslocError, OutputError
from msloc_edge.journal import Item, Journal
from msloc_edge.listen.config import ListenConfig
from msloc_edge.listen.log import Log
from msloc_edge.listen.metrics import Metrics
from msloc_edge.listen.queue import LOCALIZED, RECEIVED, route, take
from msloc_edge.listen.spool import Spool
from msloc_edge.objects import NotAnalysed, make_object
from msloc_edge.objects.encoding import encode
from msloc_edge.pipeline import Localizer
from msloc_edge.result import Result

MAX_ATTEMPTS = 3
"""Times that a film may fail for a reason that is not its own, or end the program, before it counts as not analysed."""

_DISK = ("disk_full", "out_unwritable")
_PAUSE_S = 10.0
"""Seconds until a film is tried again that had to wait for the disk, or for the backend."""


class Worker:
    """Takes a film as far as its deliveries; `work` may be called from several threads at a time.

    on_routed  is called when a film's deliveries wait
    """

    def __init__(
        self,
        config: ListenConfig,
        localizer: Localizer,
        spool: Spool,
        journal: Journal,
        metrics: Metrics,
        log: Log,
        on_routed: Callable[[], None],
    ) -> None:
        self._config, self._localizer, self._spool, self._journal = config, localizer, spool, journal
        self._metrics, self._log, self._on_routed = metrics, log, on_routed

    def work(self) -> bool:
        """Take the next film one step on; False where none waits."""
        if film := take(self._journal, LOCALIZED):  # a crash came before it was routed
            localized: Item | None = film
        elif film := take(self._journal, RECEIVED):
            localized = self._localize(film)
        else:
            return False
        if localized:
            route(self._journal, localized, self._config.nodes)
            self._on_routed()
        return True

    def _localize(self, film: Item) -> Item | None:
        """Localize a film, and write its objects; None where it has to be tried again."""
        started = time.monotonic()
        try:
            outcome = self._outcome(film)
            objects = self._make_objects(film, outcome)
            self._spool.write_objects(film.name, {kind: data for kind, (_, data) in objects.items()})
        except (MslocError, OSError) as error:
            reason = error.reason if isinstance(error, MslocError) else "out_unwritable"
            final = reason == "object_refused"
            self._log.alert("film given up" if final else "film waits", film=film.name, reason=reason)
            self._journal.fail(film, reason, str(error), None if final else _PAUSE_S)
            return None
        reason = outcome.reason if isinstance(outcome, NotAnalysed) else outcome.refused or ""
        seconds = time.monotonic() - started
        self._metrics.localized.labels(reason).inc()
        self._metrics.localize_seconds.observe(seconds)
        self._log.info(
            "film localized", film=film.name, reason=reason, objects=list(objects), seconds=round(seconds, 3)
        )
        uids = {kind: uid for kind, (uid, _) in objects.items()}
        return self._journal.advance(film, LOCALIZED, {"objects": uids, "reason": reason})

    def _outcome(self, film: Item) -> Result | NotAnalysed:
        """Localize a film. Raises a MslocError that may not come again; one that would becomes part of the outcome."""
        attempts = 0 if film.reason in _DISK else film.attempts
        failure: MslocError
        try:
            if attempts >= MAX_ATTEMPTS:
                raise InternalError("internal_error", "got a film that ended the program; please report it")
            return self._localizer.localize(self._spool.film(film.name))
        except MslocError as error:
            failure = error
        except Exception as error:  # its words may hold a header's
            failure = InternalError("internal_error", f"unexpected {type(error).__name__}; please report this film")
        if not isinstance(failure, InputError) and attempts + 1 < MAX_ATTEMPTS:
            raise failure
        return NotAnalysed.of(failure, self._localizer.bundle.id, self._localizer.operating_point)

    def _make_objects(self, film: Item, outcome: Result | NotAnalysed) -> dict[str, tuple[str, bytes]]:
        """Make the objects that the nodes get: kind -> UID and file. One that this film does not allow is left out.

        Raises OutputError (object_refused) where none can be made: the film then stays, and is listed as failed.
        """
        source = self._spool.film(film.name).read_bytes()
        made: dict[str, tuple[str, bytes]] = {}
        for kind in self._config.objects:
            try:
                dataset = make_object(outcome, source, kind)
            except OutputError as error:
                self._log.info("object left out", film=film.name, kind=kind, reason=error.reason)
                continue
            made[kind] = (str(dataset.SOPInstanceUID), encode(dataset))
        if not made:
            raise OutputError("object_refused", "expected a film that allows some object, got one that allows none")
        return made
