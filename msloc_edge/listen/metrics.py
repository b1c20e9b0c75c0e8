"""Figures for Prometheus, and the health of the service, on a local port."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator
from http.server import ThreadingHTTPServer
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, make_wsgi_app
from prometheus_client.core import GaugeMetricFamily

from msloc_edge.errors import ListenError
from msloc_edge.listen import config

_SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3600)


class Metrics:
    """Everything that is counted; each has its meaning as Prometheus shows it."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        made: dict[str, Any] = {"registry": self.registry, "namespace": "msloc"}
        self.films = Counter("films", "Films that came, by what became of them", ["outcome"], **made)
        self.localized = Counter("localized", "Films localized, or refused with a reason", ["reason"], **made)
        self.deliveries = Counter("deliveries", "Attempts to deliver an object", ["node", "outcome"], **made)
        self.localize_seconds = Histogram("localize_seconds", "Reading, network, objects", buckets=_SECONDS, **made)
        self.latency_seconds = Histogram(
            "latency_seconds",
            "From a film's arrival to an object's confirmation",
            ["node"],
            buckets=_SECONDS,
            **made,
        )
        self.associations = Gauge("associations", "Callers that are connected", **made)
        self.free_bytes = Gauge("spool_free_bytes", "Space left for the spool", **made)

    def watch_queue(self, counts: Callable[[], dict[str, int]]) -> None:
        """Show the journal's counts as they are when somebody looks."""

        class Queue:
            def collect(self) -> Iterator[GaugeMetricFamily]:
                family = GaugeMetricFamily("msloc_queue", "Films and deliveries, by their last step", labels=["step"])
                for step, count in counts().items():
                    family.add_metric([step], count)
                yield family

        self.registry.register(Queue())


class MetricsServer:
    """Serves /metrics, and /health: 200 while all is well, 503 with what is not."""

    def __init__(self, settings: config.Metrics, metrics: Metrics, troubles: Callable[[], list[str]]) -> None:
        self._show_metrics, self._troubles = make_wsgi_app(metrics.registry), troubles
        try:
            self._server = make_server(settings.host, settings.port, self._answer, _ThreadingServer, _SilentHandler)
        except OSError as error:
            raise ListenError(
                "address_taken",
                f"{settings.host}:{settings.port} cannot be listened on ({error.strerror}); choose another",
            ) from error
        self.port = int(self._server.server_port)
        threading.Thread(target=self._server.serve_forever, args=(0.1,), name="metrics", daemon=True).start()

    def stop(self) -> None:
        """Close the port."""
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        path = environ.get("PATH_INFO")
        if path == "/metrics":
            return self._show_metrics(environ, start_response)
        if path != "/health":
            start_response("404 Not Found", [("Content-Type", "text/plain")])
            return [b"/metrics or /health\n"]
        troubles = self._troubles()
        status = "503 Service Unavailable" if troubles else "200 OK"
        start_response(status, [("Content-Type", "application/json")])
        return [json.dumps({"healthy": not troubles, "troubles": troubles}).encode() + b"\n"]


class _ThreadingServer(ThreadingHTTPServer, WSGIServer):
    """A client that hangs holds up no other."""

    daemon_threads = True


class _SilentHandler(WSGIRequestHandler):
    timeout = 10

    def log_message(self, *arguments: object) -> None:
        """Log nothing: a look every 15 seconds is no event."""
