"""What peers send, and what they may do wrong: real ones of DCMTK, and sockets that no DICOM program would open."""

from __future__ import annotations

import io
import json
import shutil
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pydicom
import pytest
from dicom_peers import AE_TITLE, PATIENCE, storescu, wait_until
from pydicom.uid import Comprehensive3DSRStorage, SecondaryCaptureImageStorage
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.sop_class import StorageCommitmentPushModel, StudyRootQueryRetrieveInformationModelFind

from msloc_edge.imaging.dicom import TRANSFER_SYNTAXES
from msloc_edge.journal import Journal
from msloc_edge.listen.config import Limits, Receive, Take, Tls
from msloc_edge.listen.inbox import Inbox
from msloc_edge.listen.log import Log
from msloc_edge.listen.metrics import Metrics
from msloc_edge.listen.receive import SOP_CLASSES, Receiver
from msloc_edge.listen.spool import Spool

needs_dcmtk = pytest.mark.skipif(shutil.which("storescu") is None, reason="storescu is missing (Debian: dcmtk)")


class Running:
    """The way in, without what follows: films stay in the journal as received."""

    def __init__(self, folder: Path, receive: dict[str, Any], take: dict[str, Any], limits: dict[str, Any]) -> None:
        self.written = io.StringIO()
        log = Log(self.written)
        self.spool = Spool(folder)
        self.journal: Journal = self.spool.open_journal()
        inbox = Inbox(self.spool, self.journal, Take(**take), Limits(**limits), Metrics(), log)
        self.receiver = Receiver(Receive(port=0, **receive), inbox.take_film, log)
        self.port = self.receiver.start()

    @property
    def received(self) -> list[str]:
        return [item.name for item in self.journal.find(step="received")]

    def logged(self, event: str) -> list[dict[str, Any]]:
        return [line for line in map(json.loads, self.written.getvalue().splitlines()) if line["event"] == event]

    def stop(self) -> None:
        self.receiver.stop(0)
        self.journal.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    running: list[Running] = []

    def begin(take: dict[str, Any] | None = None, limits: dict[str, Any] | None = None, **receive: Any) -> Running:
        running.append(Running(tmp_path / "spool", receive, take or {}, limits or {}))
        return running[-1]

    yield begin
    for one in running:
        one.stop()
    while _OPENED:  # pynetdicom leaves those open that the other side has closed first
        _OPENED.pop().close()


_OPENED: list[socket.socket] = []


def associate(
    port: int, syntax: str = "1.2.840.10008.1.2.1", title: str = "MODALITY", called: str = AE_TITLE
) -> Association:
    ae = AE(title)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = PATIENCE
    for sop_class in SOP_CLASSES:
        ae.add_requested_context(sop_class, [syntax])
    handlers = [(evt.EVT_CONN_OPEN, lambda event: _OPENED.append(event.assoc.dul.socket.socket))]
    return ae.associate("127.0.0.1", port, ae_title=called, evt_handlers=handlers)


def rejection(association: Association) -> tuple[int, int, int]:
    """Result, source and reason of an A-ASSOCIATE-RJ (PS3.8 9.3.4)."""
    assert association.is_rejected
    answer = association.acceptor.primitive
    return answer.result, answer.result_source, answer.diagnostic


def send(port: int, film: pydicom.Dataset) -> int | None:
    """Status of one film, sent as it is."""
    association = associate(port, film.file_meta.TransferSyntaxUID)
    assert association.is_established
    try:
        return association.send_c_store(film).get("Status")
    finally:
        if association.is_established:
            association.release()


def with_uid(film: Path, number: int) -> pydicom.Dataset:
    dataset = pydicom.dcmread(film)
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{number}"
    return dataset


# What is right


@needs_dcmtk
def test_echo_and_store(start: Callable[..., Running], films: list[Path], uid_of: Callable[[Path], str]) -> None:
    running = start()
    subprocess.run(["echoscu", "-aec", AE_TITLE, "127.0.0.1", str(running.port)], check=True, timeout=PATIENCE)
    assert storescu(running.port, films[:3]) == films[:3]
    assert running.received == [uid_of(film) for film in films[:3]]
    kept = pydicom.dcmread(running.spool.film(uid_of(films[0])))
    sent = pydicom.dcmread(films[0])
    assert kept == sent
    assert kept.file_meta.MediaStorageSOPInstanceUID == sent.SOPInstanceUID
    assert (running.spool.folder / "films").stat().st_mode & 0o077 == 0


def test_every_transfer_syntax_that_is_decoded_is_negotiated(start: Callable[..., Running]) -> None:
    running = start()
    for syntax in TRANSFER_SYNTAXES:
        association = associate(running.port, syntax)
        assert {(context.abstract_syntax, context.transfer_syntax[0]) for context in association.accepted_contexts} == {
            (sop_class, syntax) for sop_class in SOP_CLASSES
        }
        association.release()
    assert len(TRANSFER_SYNTAXES) >= 14


@needs_dcmtk
def test_a_film_that_comes_twice_is_kept_once(start: Callable[..., Running], films: list[Path]) -> None:
    running = start()
    assert storescu(running.port, [films[0], films[0]]) == [films[0], films[0]]
    other = pydicom.dcmread(films[0])
    other.ViewPosition = "AP"
    assert send(running.port, other) == 0x0000
    assert len(running.received) == 1
    assert [line["event"] for line in map(json.loads, running.written.getvalue().splitlines()) if "bytes" in line] == [
        "film received", "film known", "film known with other content",
    ]  # fmt: skip


def test_the_same_film_from_many_at_a_time(start: Callable[..., Running], films: list[Path]) -> None:
    running = start()
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda _: send(running.port, pydicom.dcmread(films[0])), range(8))) == [0] * 8
    assert len(running.received) == 1
    assert len(list((running.spool.folder / "films").iterdir())) == 1


@pytest.mark.parametrize(
    ("take", "header", "taken"),
    [
        ({}, {}, True),
        ({"modalities": ("CR",)}, {}, False),
        ({"modalities": ("CR",)}, {"Modality": ""}, True),
        ({"body_parts": ("chest", "thorax")}, {"BodyPartExamined": "CHEST"}, True),
        ({"body_parts": ("chest",)}, {"BodyPartExamined": "HAND"}, False),
        ({"body_parts": ("chest",)}, {"BodyPartExamined": ""}, True),
        ({"body_parts": ("chest",), "without_body_part": False}, {"BodyPartExamined": ""}, False),
    ],
)
def test_which_films_are_taken(
    start: Callable[..., Running], films: list[Path], take: dict[str, Any], header: dict[str, str], taken: bool
) -> None:
    running, film = start(take=take), pydicom.dcmread(films[0])
    for keyword, value in header.items():
        setattr(film, keyword, value)
    assert send(running.port, film) == 0x0000
    assert len(running.received) == taken
    assert len(running.journal.find(step="passed over")) == (not taken)
    assert len(list((running.spool.folder / "films").iterdir())) == taken


# Who may


@needs_dcmtk
def test_ae_titles(start: Callable[..., Running], films: list[Path]) -> None:
    running = start(calling_ae_titles=("ROOM1", "ROOM2"))
    assert storescu(running.port, films[:1], "-aet", "ROOM2") == films[:1]
    assert storescu(running.port, films[1:2], "-aet", "ROOM3") == []
    assert storescu(running.port, films[1:2], "-aet", "ROOM1", ae_title="OTHER") == []
    assert [line["sender"] for line in running.logged("association rejected")] == ["ROOM3", "ROOM1"]
    assert rejection(associate(running.port, title="ROOM3")) == (1, 1, 3)  # permanent, user: calling AE title unknown
    assert rejection(associate(running.port, title="ROOM1", called="OTHER")) == (1, 1, 7)  # the called one


def test_one_association_too_many_is_rejected(start: Callable[..., Running]) -> None:
    running = start(max_associations=2)
    held = [associate(running.port), associate(running.port)]
    assert all(association.is_established for association in held)
    assert rejection(associate(running.port)) == (2, 3, 2)  # transient, presentation related: local limit exceeded
    held.pop().release()
    wait_until(lambda: running.receiver.associations == 1, "the release")
    assert associate(running.port).is_established


def test_thirty_associations_at_a_time(start: Callable[..., Running], films: list[Path]) -> None:
    """Each is accepted, or told that there are too many; none is left without an answer."""
    running = start(max_associations=16)
    with ThreadPoolExecutor(30) as pool:
        held = list(pool.map(lambda _: associate(running.port), range(30)))
    accepted = [association for association in held if association.is_established]
    assert 1 <= len(accepted) <= 16
    assert len(accepted) + sum(association.is_rejected for association in held) == 30
    for association in accepted:
        association.release()
    wait_until(lambda: running.receiver.associations == 0, "the releases")
    assert send(running.port, pydicom.dcmread(films[0])) == 0x0000


@needs_dcmtk
def test_what_is_no_film_is_not_negotiated(start: Callable[..., Running], films: list[Path], tmp_path: Path) -> None:
    """Reports, secondary captures, storage commitment, queries: abstract syntax not supported (PS3.8 9.3.3.2)."""
    running, ae = start(), AE("MODALITY")
    others = (
        Comprehensive3DSRStorage,
        SecondaryCaptureImageStorage,
        StorageCommitmentPushModel,
        StudyRootQueryRetrieveInformationModelFind,
    )
    for sop_class in (*others, SOP_CLASSES[0]):
        ae.add_requested_context(sop_class)
    association = ae.associate("127.0.0.1", running.port, ae_title=AE_TITLE)
    assert [context.abstract_syntax for context in association.accepted_contexts] == [SOP_CLASSES[0]]
    assert {context.abstract_syntax: context.result for context in association.rejected_contexts} == dict.fromkeys(
        others, 0x03
    )
    association.release()
    capture = pydicom.dcmread(films[0])
    capture.SOPClassUID = capture.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    capture.save_as(tmp_path / "capture.dcm")
    assert storescu(running.port, [tmp_path / "capture.dcm"]) == []
    assert storescu(running.port, films[:1]) == films[:1]


@needs_dcmtk
def test_tls_on_both_sides(
    start: Callable[..., Running], films: list[Path], certificates: Callable[[str], Tls]
) -> None:
    ours, theirs, foreign = certificates("ours"), certificates("theirs"), certificates("foreign")
    running = start(tls=Tls(ours.cert, ours.key, theirs.cert))
    known = ("+tls", theirs.key, theirs.cert, "+cf", ours.cert)
    unknown = ("+tls", foreign.key, foreign.cert, "+cf", ours.cert)
    with socket.create_connection(("127.0.0.1", running.port)):  # says nothing, and holds up nobody
        assert storescu(running.port, films[:1], *known) == films[:1]
    assert storescu(running.port, films[1:2], *unknown) == []
    assert storescu(running.port, films[1:2]) == []
    assert len(running.received) == 1


# What is wrong


def test_statuses_of_what_is_not_kept(start: Callable[..., Running], films: list[Path]) -> None:
    running = start(limits={"queue_films": 2})
    nameless = with_uid(films[0], 1)
    del nameless.StudyInstanceUID
    assert send(running.port, nameless) == 0xA900
    assert send(running.port, with_uid(films[0], 2)) == 0x0000
    assert send(running.port, with_uid(films[0], 3)) == 0x0000
    assert send(running.port, with_uid(films[0], 4)) == 0xA700
    assert len(running.received) == 2
    assert [(line["status"], line["why"]) for line in running.logged("film refused")] == [
        ("A900", "it lacks a legal UID of its own, its series or its study"), ("A700", "the queue is full"),
    ]  # fmt: skip


def test_a_full_disk(start: Callable[..., Running], films: list[Path]) -> None:
    running = start(limits={"free_disk_mb": 1 << 40})
    assert send(running.port, with_uid(films[0], 1)) == 0xA700
    assert running.received == []
    assert list((running.spool.folder / "films").iterdir()) == []


def test_a_disk_that_fails(start: Callable[..., Running], films: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    running = start()

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("msloc_edge.listen.spool.os.fsync", fail)
        assert send(running.port, with_uid(films[0], 1)) == 0xA700
    assert list((running.spool.folder / "films").iterdir()) == []
    assert send(running.port, with_uid(films[0], 1)) == 0x0000


def associate_request() -> bytes:
    """An A-ASSOCIATE-RQ (PS3.8 9.3.2) for DX in Explicit VR Little Endian, context 1."""

    def item(kind: int, data: bytes) -> bytes:
        return struct.pack(">BxH", kind, len(data)) + data

    syntaxes = item(0x30, b"1.2.840.10008.5.1.4.1.1.1.1") + item(0x40, b"1.2.840.10008.1.2.1")
    user = item(0x51, struct.pack(">L", 16384)) + item(0x52, b"1.2.3")
    body = struct.pack(">HH16s16s32x", 1, 0, AE_TITLE.encode().ljust(16), b"SOCKET".ljust(16))
    body += item(0x10, b"1.2.840.10008.3.1.1.1") + item(0x20, b"\x01\0\0\0" + syntaxes) + item(0x50, user)
    return struct.pack(">BxL", 1, len(body)) + body


def store_request(rest: bytes, declared: int | None = None) -> bytes:
    """A C-STORE-RQ of DX 1.2.3.4, and a PDU with the first part of its data set."""

    def element(number: int, value: bytes) -> bytes:
        value += b"\0" * (len(value) % 2)
        return struct.pack("<HHL", 0, number, len(value)) + value

    command = element(0x0002, b"1.2.840.10008.5.1.4.1.1.1.1") + element(0x0100, b"\x01\0") + element(0x0110, b"\x01\0")
    command += element(0x0700, b"\0\0") + element(0x0800, b"\0\0") + element(0x1000, b"1.2.3.4")
    command = element(0x0000, struct.pack("<L", len(command))) + command
    return data_pdu(b"\x03" + command) + data_pdu(b"\0" + rest, declared)


def data_pdu(value: bytes, declared: int | None = None) -> bytes:
    body = struct.pack(">LB", len(value) + 1, 1) + value
    return struct.pack(">BxL", 4, declared or len(body)) + body


WRONG: dict[str, bytes] = {
    "silence": b"",
    "a web browser": b"GET / HTTP/1.1\r\nHost: pacs\r\n\r\n",
    "garbage": bytes(range(256)) * 40,
    "half a PDU": associate_request()[:50],
    "an endless PDU": b"\x01\0\xff\xff\xff\xff" + b"x" * 1000,
    "data before the association": store_request(b"1234"),
    "data beside the request": associate_request() + store_request(b"1234"),
}


WRONG_LATER: dict[str, bytes] = {
    "silence later": b"",
    "half an object": store_request(b"\x08\0\x05\0CS\x0a\0ISO_IR 100" + b"\0" * 1000),
    "an abort in an object": store_request(b"\x08\0\x05\0CS" + b"\0" * 1000) + struct.pack(">BxL4x", 7, 4),
    "an object without an end": store_request(b"", declared=1 << 31),
    "garbage later": bytes(range(255, 0, -1)) * 40,
    "a second association": associate_request(),
}
"""After the association was accepted."""


def test_peers_that_do_wrong_disturb_no_other(start: Callable[..., Running], films: list[Path]) -> None:
    running = start(timeout_s=3.0, max_associations=20)
    connections = {}
    for name, data in (WRONG | WRONG_LATER).items():
        connections[name] = opened(running.port) if name in WRONG_LATER else connected(running.port)
        connections[name].sendall(data)
    aborting = associate(running.port)
    aborting.abort()
    assert send(running.port, pydicom.dcmread(films[0])) == 0x0000
    for name, connection in connections.items():
        with connection:
            assert ended(connection), name
    wait_until(lambda: running.receiver.associations == 0, "the end of all associations")
    assert len(running.received) == 1
    assert len(list((running.spool.folder / "films").iterdir())) == 1


def connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)


def opened(port: int) -> socket.socket:
    """A connection whose association was accepted."""
    connection = connected(port)
    connection.sendall(associate_request())
    kind, length = struct.unpack(">BxL", connection.recv(6, socket.MSG_WAITALL))
    assert kind == 2
    connection.recv(length, socket.MSG_WAITALL)
    return connection


def ended(connection: socket.socket) -> bool:
    """Whether the other side closes, whatever it sends before; else a time-out."""
    try:
        while connection.recv(4096):
            pass
    except ConnectionError:
        pass
    return True


def test_a_data_set_that_is_none(start: Callable[..., Running]) -> None:
    running = start()
    with opened(running.port) as connection:
        connection.sendall(store_request(b"") + data_pdu(b"\x02" + b"\x07" * 900))
        answer = connection.recv(4096)
        assert b"\0\0\0\x09\x02\0\0\0" in answer  # (0000,0900) Status, in the answer to the C-STORE
        connection.sendall(struct.pack(">BxL4x", 7, 4))
    (refusal,) = running.logged("film refused")
    assert refusal["status"] in ("C000", "A900")
    assert running.received == []


def test_an_object_that_is_too_large(start: Callable[..., Running], films: list[Path]) -> None:
    running, film = start(max_object_mb=1), with_uid(films[0], 1)
    film.Rows = film.Columns = 2048
    film.PixelData = b"\0" * (2 * 2048 * 2048)
    assert send(running.port, film) is None
    assert running.received == []
    assert send(running.port, with_uid(films[0], 2)) == 0x0000


def test_no_patient_in_the_log(start: Callable[..., Running], films: list[Path]) -> None:
    running, film = start(), with_uid(films[0], 1)
    film.PatientName, film.PatientID, film.AccessionNumber = "MUSTERMANN^ERIKA", "PATIENT-0815", "ACC4711"
    assert send(running.port, film) == 0x0000
    film = with_uid(films[0], 2)
    film.PatientName = "MUSTERMANN^ERIKA"
    del film.SeriesInstanceUID
    assert send(running.port, film) == 0xA900
    journal = (running.spool.folder / "journal.sqlite-wal").read_bytes()
    for name in ("MUSTERMANN", "PATIENT-0815", "ACC4711"):
        assert name not in running.written.getvalue()
        assert name.encode() not in journal
