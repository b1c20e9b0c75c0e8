"""The way out: objects to one node, over an association (C-STORE) or over HTTP (STOW-RS)."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Any, Protocol

import pydicom
import requests
from dicomweb_client import DICOMwebClient
from pydicom.uid import (
    Comprehensive3DSRStorage,
    ExplicitVRLittleEndian,
    GrayscaleSoftcopyPresentationStateStorage,
    ImplicitVRLittleEndian,
    ParametricMapStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.events import Event

from msloc_edge.errors import ListenError
from msloc_edge.journal import Item, Journal
from msloc_edge.listen.config import Archive, Node, Retry
from msloc_edge.listen.log import Log
from msloc_edge.listen.metrics import Metrics
from msloc_edge.listen.queue import DELIVERED, settle, take, waiting_for
from msloc_edge.listen.spool import Spool
from msloc_edge.listen.tls import client_context

SOP_CLASSES = (
    Comprehensive3DSRStorage,
    SegmentationStorage,
    ParametricMapStorage,
    GrayscaleSoftcopyPresentationStateStorage,
    SecondaryCaptureImageStorage,
)
TRANSFER_SYNTAXES = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)

_SUCCESS = 0x0000
_KEPT = (0xB000, 0xB006, 0xB007, 0x0111)
"""PS3.4 table B.2-1: warnings that say that the object is kept; PS3.7 C.5.8: it was there before."""


class Client(Protocol):
    """Connection to a node."""

    def send(self, path: Path) -> None:
        """Return when the node has confirmed that it keeps the object.

        Raises ListenError: node_unreachable, node_busy, node_refused.
        """

    def close(self) -> None:
        """End the connection until something is sent again."""


class Sender:
    """Takes deliveries for one node from the journal, until each is confirmed or given up."""

    def __init__(
        self, node: Node, retry: Retry, client: Client, spool: Spool, journal: Journal, metrics: Metrics, log: Log
    ) -> None:
        self._node, self._retry, self._client, self._spool, self._journal = node, retry, client, spool, journal
        self._metrics, self._log = metrics, log
        self._failures, self._resume = 0, 0.0

    def work(self) -> bool:
        """Send the next object; False where none waits, or the node is to be left alone for now."""
        if time.monotonic() < self._resume:
            return False
        delivery = take(self._journal, waiting_for(self._node.name))
        if delivery is None:
            self._client.close()
            return False
        try:
            self._client.send(self._spool.object(delivery.facts["film"], delivery.facts["kind"]))
        except ListenError as error:
            self._note_failure(delivery, error)
            return True
        self._failures = 0
        self._journal.advance(delivery, DELIVERED)
        settle(self._journal, delivery.content)
        self._metrics.deliveries.labels(self._node.name, "confirmed").inc()
        self._metrics.latency_seconds.labels(self._node.name).observe(time.time() - delivery.facts["received"])
        self._log.info("object confirmed", **self._facts(delivery))
        return True

    def _note_failure(self, delivery: Item, error: ListenError) -> None:
        """Let a delivery wait, or give it up: when the node refused this object, or when it has waited for too long."""
        if error.reason == "node_unreachable":  # no other object would get through either
            self._failures += 1
            self._resume = time.monotonic() + self._retry.pause(self._failures)
        too_old = time.time() - delivery.added > self._retry.give_up_hours * 3600
        final = too_old or error.reason == "node_refused"
        pause = self._retry.pause(delivery.attempts + 1) if error.reason == "node_busy" else 0.0
        self._journal.fail(delivery, error.reason, error.message, None if final else pause)
        self._metrics.deliveries.labels(self._node.name, error.reason).inc()
        tell = self._log.alert if final else self._log.warning
        tell(
            "object given up" if final else "object waits",
            **self._facts(delivery),
            reason=error.reason,
            message=error.message,
        )

    def _facts(self, delivery: Item) -> dict[str, str]:
        return {name: delivery.facts[name] for name in ("film", "object", "kind", "node")}


def connect(node: Node, ae_title: str) -> Client:
    """Make the client for a node, not connected yet. Raises ListenError (config_invalid) for its certificates."""
    return StowClient(node) if node.url else StoreClient(node, ae_title)


def application_entity(peer: Node | Archive, ae_title: str) -> AE:
    """Make our application entity, which gives a peer up after its `timeout_s`; contexts are added by the caller."""
    entity = AE(ae_title)
    entity.acse_timeout = entity.dimse_timeout = peer.timeout_s
    entity.network_timeout = entity.connection_timeout = peer.timeout_s
    return entity


class StoreClient:
    """C-STORE: one association for as long as there is something to send."""

    def __init__(self, node: Node, ae_title: str) -> None:
        self._node = node
        self._tls = (client_context(node.tls), node.host) if node.tls else None
        self._ae = application_entity(node, ae_title)
        for sop_class in SOP_CLASSES:
            self._ae.add_requested_context(sop_class, list(TRANSFER_SYNTAXES))
        self._association: Association | None = None
        self._connection: socket.socket | None = None

    def send(self, path: Path) -> None:
        """Send one object; see Client."""
        association = self._associate()
        try:
            status = association.send_c_store(path).get("Status")
        except ValueError as error:
            raise ListenError(
                "node_refused", f"{self._node.name}: its class was not accepted; allow it there"
            ) from error
        except RuntimeError:  # the association ended meanwhile
            status = None
        if status is None:
            self.close()
            raise ListenError("node_unreachable", f"{self._node.name}: no answer, or the connection was closed")
        if status != _SUCCESS:
            _check_kept(self._node.name, status)

    def close(self) -> None:
        """Release the association."""
        association, self._association = self._association, None
        if association and association.is_established:
            association.release()
        if self._connection:  # pynetdicom leaves it open where the node was the first to close
            self._connection.close()

    def _associate(self) -> Association:
        if self._association and self._association.is_established:
            return self._association
        node = self._node
        self.close()
        association = self._ae.associate(
            node.host,
            node.port,
            ae_title=node.ae_title,
            tls_args=self._tls,
            evt_handlers=[(evt.EVT_CONN_OPEN, self._note_connection)],
        )
        if not association.is_established:
            self.close()
            got = "the association was rejected" if association.is_rejected else "no association"
            raise ListenError("node_unreachable", f"{node.name}: {got}; check address, AE titles and TLS")
        self._association = association
        return association

    def _note_connection(self, event: Event) -> None:
        opened = event.assoc.dul.socket
        self._connection = opened.socket if opened else None


class StowClient:
    """STOW-RS (PS3.18 10.5), one object a request."""

    def __init__(self, node: Node) -> None:
        self._node, self._session = node, _Session()
        if node.tls:
            client_context(node.tls)  # tells now what would fail later
            self._session.verify = node.tls.ca or True
            self._session.cert = (node.tls.cert, node.tls.key) if node.tls.cert else None
        self._client = DICOMwebClient(node.url, self._session, timeout=node.timeout_s)
        self._client.set_http_retry_params(retry=False)  # we retry ourselves

    def send(self, path: Path) -> None:
        """Send one object; see Client."""
        name = self._node.name
        try:
            stored = self._client.store_instances([pydicom.dcmread(path)])
        except requests.HTTPError as error:
            code = error.response.status_code if error.response is not None else 0
            if code in (408, 429) or code >= 500:
                raise ListenError("node_busy", f"{name}: HTTP {code}") from error
            raise ListenError("node_refused", f"{name}: HTTP {code}") from error
        except (requests.RequestException, OSError) as error:
            raise ListenError("node_unreachable", f"{name}: {type(error).__name__}") from error
        for item in stored.get("FailedSOPSequence", ()):
            _check_kept(name, int(item.get("FailureReason", 0)))

    def close(self) -> None:
        """Close the connections."""
        self._session.close()


class _Session(requests.Session):
    """Trusts the authority that the configuration names: requests would prefer REQUESTS_CA_BUNDLE to it."""

    def merge_environment_settings(self, url: Any, proxies: Any, stream: Any, verify: Any, cert: Any) -> Any:
        return super().merge_environment_settings(url, proxies, stream, verify or self.verify, cert)


def _check_kept(node: str, status: int) -> None:
    """Raise ListenError (node_busy, node_refused) for a status of a node that says that it does not keep an object."""
    if 0xA700 <= status <= 0xA7FF:
        raise ListenError("node_busy", f"{node}: out of resources ({status:04X})")
    if status not in _KEPT:
        raise ListenError("node_refused", f"{node}: refused with status {status:04X}")
