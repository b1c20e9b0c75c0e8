"""The Storage SCP: C-ECHO, and C-STORE of films, from peers of which none can hold up another.

pynetdicom speaks the protocol. Added here are the bounds that it lacks: TLS is negotiated in a connection's own thread,
a PDU arrives whole within the timeout, and is no longer, and an object no larger, than allowed.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable
from functools import partial
from socketserver import BaseServer
from typing import Any, cast

from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
)
from pynetdicom import AE, _config, evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.events import Event
from pynetdicom.transport import RequestHandler, ThreadedAssociationServer

from msloc_edge.errors import ListenError
from msloc_edge.imaging.dicom import TRANSFER_SYNTAXES
from msloc_edge.listen.config import Receive
from msloc_edge.listen.inbox import Refused
from msloc_edge.listen.log import Log
from msloc_edge.listen.tls import server_context

SOP_CLASSES = (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
)
VERIFICATION = UID("1.2.840.10008.1.1")

SUCCESS = 0x0000

_LONGEST_PDU = 2 << 20
"""Bytes of any PDU: an A-ASSOCIATE-RQ may be longer than the PDUs that were agreed on, which are 1 MiB at most."""

TakeFilm = Callable[[bytes, str, str], None]
"""Keeps a film: its file's bytes, the SOP instance UID that its sender named, the sender's AE title. Raises Refused."""


class Receiver:
    """Answers callers from `start` to `stop`; each film goes to `take_film` before it is acknowledged."""

    def __init__(self, config: Receive, take_film: TakeFilm, log: Log) -> None:
        self._config, self._take_film, self._log = config, take_film, log
        self._tls = server_context(config.tls) if config.tls else None
        self._server: _Server | None = None
        _config.LOG_HANDLER_LEVEL = "none"  # pynetdicom's own lines quote what a peer sent
        self._ae = AE(config.ae_title)
        self._ae.require_called_aet = True
        self._ae.require_calling_aet = list(config.calling_ae_titles)
        self._ae.maximum_associations = config.max_associations
        self._ae.maximum_pdu_size = config.max_pdu
        self._ae.acse_timeout = self._ae.dimse_timeout = self._ae.network_timeout = config.timeout_s
        self._ae.add_supported_context(VERIFICATION)
        for sop_class in SOP_CLASSES:
            self._ae.add_supported_context(sop_class, list(TRANSFER_SYNTAXES))

    def start(self) -> int:
        """Listen; returns the port. Raises ListenError (address_taken)."""
        address = (self._config.host, self._config.port)
        handlers = [
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_ACCEPTED, self._log_event, ["association accepted"]),
            (evt.EVT_REJECTED, self._log_event, ["association rejected"]),
            (evt.EVT_ABORTED, self._log_event, ["association aborted"]),
        ]
        try:
            self._server = _Server(
                self._ae, address, self._ae.ae_title, self._ae.supported_contexts, handlers, self._config, self._tls
            )
        except OSError as error:
            raise ListenError(
                "address_taken", f"{address[0]}:{address[1]} cannot be listened on ({error.strerror}); choose another"
            ) from error
        threading.Thread(target=self._server.serve_forever, args=(0.1,), name="accept", daemon=True).start()
        return int(self._server.server_address[1])

    def stop(self, grace_s: float) -> None:
        """Take no more callers, give those that are here `grace_s` seconds to finish, then abort them."""
        if self._server is None:
            return
        self._server.shutdown()
        end = time.monotonic() + grace_s
        while self.associations and time.monotonic() < end:
            time.sleep(0.02)
        for association in self._server.active_associations:
            association.abort(block=False)

    @property
    def associations(self) -> int:
        """Number of callers."""
        return len(self._server.active_associations) if self._server else 0

    def _store(self, event: Event) -> int:
        """Keep one film; its C-STORE status is the return value."""
        uid = str(cast(C_STORE, event.request).AffectedSOPInstanceUID)
        sender = event.assoc.requestor.ae_title.strip()
        started = time.monotonic()
        event.assoc.network_timeout = None  # the peer is waiting for us now, not silent
        try:
            self._take_film(event.encoded_dataset(), uid, sender)
        except Refused as refusal:
            self._log.warning("film refused", film=uid, sender=sender, status=f"{refusal.status:04X}", why=str(refusal))
            return refusal.status
        finally:
            event.assoc.network_timeout = self._config.timeout_s + time.monotonic() - started
        return SUCCESS

    def _log_event(self, event: Event, what: str) -> None:
        requestor = event.assoc.requestor
        title = requestor.ae_title.strip() if requestor.primitive else ""
        self._log.info(what, sender=title, address=requestor.address_info.address if requestor.address_info else "")


class _Server(ThreadedAssociationServer):
    """Accepts connections. What a peer does, or leaves undone, before it associates happens in a thread of its own."""

    daemon_threads = True

    def __init__(
        self,
        ae: AE,
        address: tuple[str, int],
        ae_title: str,
        contexts: Any,
        handlers: Any,
        config: Receive,
        tls: ssl.SSLContext | None,
    ) -> None:
        self.config, self._tls = config, tls
        self._lock = threading.Lock()
        self._greeted = 0
        super().__init__(ae, address, ae_title, contexts, None, handlers, _Handler)

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Turn connections away beyond those that could get the answer that there are too many."""
        return len(self.active_associations) + self._greeted < 2 * self.config.max_associations

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Negotiate TLS, then let pynetdicom go on."""
        request.settimeout(self.config.timeout_s)
        with self._lock:
            self._greeted += 1
        try:
            if self._tls:
                request = self._tls.wrap_socket(request, server_side=True)
            super().process_request_thread(request, client_address)
        except OSError:
            self.shutdown_request(request)
        finally:
            with self._lock:
                self._greeted -= 1

    def shutdown(self) -> None:
        """Accept no more connections; pynetdicom's own expects a server that its AE has started."""
        BaseServer.shutdown(self)
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Stay silent: a peer that has gone meanwhile is no event."""


class _Handler(RequestHandler):
    """Makes an association whose socket is read within bounds, and is closed in any case."""

    def _create_association(self) -> Association:
        association = super()._create_association()
        config = cast(_Server, self.server).config
        bounded = _BoundedReader(self.request, config.timeout_s, config.max_object_mb << 20)
        reactor = association.dul
        assert reactor.socket is not None
        reactor.socket.recv = bounded.recv  # type: ignore[method-assign] # pynetdicom has no place for it
        reactor.run = partial(_run, reactor.run, self.request)  # type: ignore[method-assign]
        reactor.daemon = True
        association.bind(evt.EVT_DIMSE_RECV, bounded.restart)
        return association


def _run(reactor: Callable[[], None], connection: socket.socket) -> None:
    """Run the thread that reads and writes. A peer can bring pynetdicom's states out of step: its connection ends."""
    with connection, contextlib.suppress(Exception):
        reactor()


class _BoundedReader:
    """Reads a peer's bytes: OSError, which ends the association, for too many or too slow ones."""

    def __init__(self, connection: socket.socket, timeout_s: float, max_object: int) -> None:
        self._connection, self._timeout_s, self._max_object = connection, timeout_s, max_object
        self._taken = 0

    def restart(self, event: Event) -> None:
        """Begin to count anew: a message is whole."""
        self._taken = 0

    def recv(self, nr_bytes: int) -> bytearray:
        """Read so many bytes, or fewer where the peer has closed."""
        self._taken += nr_bytes
        if nr_bytes > _LONGEST_PDU or self._taken > self._max_object + _LONGEST_PDU:
            raise OSError("more bytes than were agreed on")
        data, got = bytearray(nr_bytes), 0
        end = time.monotonic() + self._timeout_s
        try:
            while got < nr_bytes:
                self._connection.settimeout(max(end - time.monotonic(), 1e-3))
                received = self._connection.recv_into(memoryview(data)[got:])
                if not received:
                    break
                got += received
        finally:
            with contextlib.suppress(OSError):
                self._connection.settimeout(self._timeout_s)
        return data[:got]
