"""The service: its threads, from start to stop."""

from __future__ import annotations

import threading
from pathlib import Path

from msloc_edge._files import require_writable
from msloc_edge.bundle import Bundle
from msloc_edge.listen.config import ListenConfig
from msloc_edge.listen.inbox import Inbox
from msloc_edge.listen.keep import Keeper
from msloc_edge.listen.log import Log, silence_libraries
from msloc_edge.listen.loop import Loop
from msloc_edge.listen.metrics import Metrics, MetricsServer
from msloc_edge.listen.queue import withdraw
from msloc_edge.listen.receive import Receiver
from msloc_edge.listen.send import Sender, connect
from msloc_edge.listen.spool import Spool
from msloc_edge.listen.tls import server_context
from msloc_edge.listen.workers import Worker
from msloc_edge.pipeline import Localizer

_STOP_S = 10.0
"""Seconds that callers, and then each thread, have to finish; what is cut off is done again after the next start."""


def check(config: ListenConfig) -> None:
    """Check what a configuration names: certificates, nodes' addresses, the model, the spool. Nothing is started.

    Raises as Service does.
    """
    if config.receive.tls:
        server_context(config.receive.tls)
    for node in config.nodes:
        connect(node, config.receive.ae_title)
    Bundle.open(config.model.model).profile(config.model.profile)
    require_writable(Path(config.spool))


class Service:
    """A listener at work.

    receiver ── inbox ── journal ── workers ── journal ── a sender for each node ── journal ── keeper

    Raises ListenError (config_invalid, address_taken, spool_taken), BundleError, BackendError, OutputError when it
    cannot start.
    """

    def __init__(self, config: ListenConfig, log: Log) -> None:
        silence_libraries()
        self._config, self._log, self._metrics = config, log, Metrics()
        self._spool = Spool(Path(config.spool))
        self._spool.lock()
        self._journal = self._spool.open_journal()
        self._resume_journal()
        model = config.model
        self._localizer = Localizer(model.model, model.backend, model.device, model.profile, precision=model.precision)
        parts = (self._spool, self._journal, self._metrics, log)
        worker = Worker(config, self._localizer, *parts, self._wake_senders)
        self._workers = [Loop(f"worker {number}", worker.work, log) for number in range(model.workers)]
        self._senders = [
            Loop(
                f"sender {node.name}",
                Sender(node, config.retry, connect(node, config.receive.ae_title), *parts).work,
                log,
            )
            for node in config.nodes
        ]
        self._keeper = Loop("keeper", Keeper(config.keep, self._spool, self._journal, log).work, log)
        self._inbox = Inbox(self._spool, self._journal, config.take, config.limits, self._metrics, log)
        self._receiver = Receiver(config.receive, self._take_film, log)

    def run(self, stop: threading.Event) -> None:
        """Serve until `stop` is set, then finish what has begun. The queue stays for the next start."""
        port = self._receiver.start()
        self._watch()
        server = MetricsServer(self._config.metrics, self._metrics, self.troubles)
        for loop in self._loops:
            loop.start()
        self._log.info("listening", port=port, metrics_port=server.port, queue=self._journal.counts())
        stop.wait()
        self._log.info("stopping")
        self._receiver.stop(_STOP_S)
        for loop in self._loops:
            loop.stop(_STOP_S)
        server.stop()
        self._localizer.close()
        self._log.info("stopped", queue=self._journal.counts())
        self._journal.close()

    def troubles(self) -> list[str]:
        """List what keeps the service from its work."""
        return [f"{loop.name} has ended" for loop in self._loops if not loop.alive] + self._inbox.shortages()

    @property
    def _loops(self) -> list[Loop]:
        return [*self._workers, *self._senders, self._keeper]

    def _take_film(self, data: bytes, uid: str, sender: str) -> None:
        self._inbox.take_film(data, uid, sender)
        for loop in self._workers:
            loop.wake()

    def _wake_senders(self) -> None:
        for loop in self._senders:
            loop.wake()

    def _watch(self) -> None:
        self._metrics.watch_queue(self._journal.counts)
        self._metrics.associations.set_function(lambda: self._receiver.associations)
        self._metrics.free_bytes.set_function(lambda: self._spool.free_bytes)

    def _resume_journal(self) -> None:
        """Take up where the last run ended, however it ended."""
        self._spool.clean(self._journal)
        self._journal.release()
        for delivery in withdraw(self._journal, self._config.nodes):
            self._log.warning("delivery withdrawn", object=delivery.facts["object"], node=delivery.facts["node"])
