"""The whole way between real peers: DCMTK and Orthanc send and receive, and any of them, and the listener, may fail."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pydicom
import pytest
from dicom_peers import PATIENCE, Listener, Orthanc, StoreScp, connects, film_uids, free_port, storescu, wait_until
from pydicom.uid import ComputedRadiographyImageStorage, generate_uid
from pynetdicom import AE, evt

from msloc_edge.errors import ListenError
from msloc_edge.listen.config import Node as ConfiguredNode
from msloc_edge.listen.config import Tls
from msloc_edge.listen.send import SOP_CLASSES, StoreClient, StowClient
from msloc_edge.pipeline import Localizer

ROOT = Path(__file__).parents[2]
SCRIPT = Path(sys.executable).with_name("msloc-edge")

Listen = Callable[..., Listener]
Node = Callable[..., StoreScp]
UidOf = Callable[[Path], str]


def test_forty_films_over_parallel_associations(
    listen: Listen, storescp: Node, films: list[Path], uid_of: UidOf
) -> None:
    node = storescp()
    listener = listen(node.node("sr", "seg"))
    with ThreadPoolExecutor(8) as pool:
        sent = list(pool.map(lambda part: storescu(listener.port, part), [films[i::8] for i in range(8)]))
    assert sorted(film for part in sent for film in part) == sorted(films)
    listener.wait_for("film deleted", 40)
    assert {film: len(reports) for film, reports in node.reports().items()} == {uid_of(film): 1 for film in films}
    assert len(node.objects) == 80
    assert not list((listener.spool / "films").iterdir())
    assert not list((listener.spool / "objects").iterdir())
    status, health = listener.get("/health")
    assert (status, json.loads(health)) == (200, {"healthy": True, "troubles": []})
    metrics = listener.get("/metrics")[1]
    for line in (
        'msloc_films_total{outcome="received"} 40.0',
        'msloc_localized_total{reason=""} 40.0',
        'msloc_deliveries_total{node="pacs",outcome="confirmed"} 80.0',
        'msloc_latency_seconds_count{node="pacs"} 80.0',
        'msloc_queue{step="deleted"} 40.0',
    ):
        assert line in metrics
    assert listener.stop() == 0
    told = json.dumps(listener.events) + metrics
    assert "Phantom" not in told
    assert "PHANTOM" not in told


def test_transfer_syntaxes_that_modalities_still_speak(
    listen: Listen, storescp: Node, films: list[Path], tmp_path: Path, uid_of: UidOf
) -> None:
    """Explicit VR Big Endian, Deflated, Implicit VR: dcmconv's options and storescu's."""
    node, options = storescp(), {"+tb": "-xb", "+td": "-xd", "+ti": "-xi"}
    listener = listen(node.node("sr"))
    for film, (to, propose) in zip(films, options.items(), strict=False):
        subprocess.run(["dcmconv", to, film, tmp_path / film.name], check=True)
        assert storescu(listener.port, [tmp_path / film.name], propose) == [tmp_path / film.name]
    assert [line["reason"] for line in listener.wait_for("film localized", 3)] == ["", "", ""]
    listener.wait_for("film deleted", 3)
    assert set(node.reports()) == {uid_of(film) for film in films[:3]}


NAMES: tuple[tuple[str | list[str], str], ...] = (
    ("ISO_IR 100", "Müller^Jörg"),
    (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
    ("GB18030", "Wang^XiaoDong=王^小东"),
    ("ISO_IR 192", "Αγγελική^Ελένη"),
)


def test_names_in_other_scripts(
    listen: Listen, storescp: Node, films: list[Path], tmp_path: Path, uid_of: UidOf
) -> None:
    node, sent = storescp(), [tmp_path / film.name for film in films[: len(NAMES)]]
    for path, source, (character_set, name) in zip(sent, films, NAMES, strict=False):
        film = pydicom.dcmread(source)
        film.SpecificCharacterSet, film.PatientName = character_set, name
        film.save_as(path)
    listener = listen(node.node("sr"))
    assert storescu(listener.port, sent) == sent
    listener.wait_for("film deleted", len(sent))
    reports = [pydicom.dcmread(path) for path in node.objects.values()]
    written = {next(iter(film_uids(report))): str(report.PatientName) for report in reports}
    assert written == {uid_of(path): name for path, (_, name) in zip(sent, NAMES, strict=True)}
    told = json.dumps(listener.events, ensure_ascii=False)
    assert not any(name.split("^")[0] in told for _, name in NAMES)


def test_orthanc_sends_films_and_takes_objects_back(
    listen: Listen, orthanc: Callable[..., Orthanc], films: list[Path]
) -> None:
    port = free_port()
    archive = orthanc(
        DicomModalities={"msloc-edge": ["MSLOC_EDGE", "127.0.0.1", port]},
        LuaScripts=[str(ROOT / "examples" / "deploy" / "orthanc" / "msloc.lua")],
    )
    by_store = {"name": "store", "objects": ["sr"], "ae_title": "ORTHANC", "host": "127.0.0.1", "port": archive.port}
    by_stow = {"name": "stow", "objects": ["seg"], "url": archive.url}
    listener = listen(by_store, by_stow, receive={"port": port})
    listener.wait_for("listening")
    for film in films[:3]:
        archive.ask("/instances", film.read_bytes())
    listener.wait_for("film deleted", 3)
    studies = archive.ask("/studies?expand")
    found = [
        sorted(archive.ask(f"/series/{uid}")["MainDicomTags"]["Modality"] for uid in study["Series"])
        for study in studies
    ]
    assert found == [["DX", "SEG", "SR"]] * 3
    assert len(listener.of("film received")) == 3


@pytest.mark.parametrize("way", ["store", "stow"])
def test_a_node_that_is_down_gets_everything_later(
    listen: Listen, storescp: Node, orthanc: Callable[..., Orthanc], films: list[Path], uid_of: UidOf, way: str
) -> None:
    port = free_port()
    down: dict[str, Any] = {"name": "down", "objects": ["sr"], "ae_title": "NODE", "host": "127.0.0.1", "port": port}
    if way == "stow":
        down = {"name": "down", "objects": ["sr"], "url": f"http://127.0.0.1:{port}/dicom-web"}
    up, retry = storescp(), {"first_s": 0.2, "max_s": 0.5}
    listener = listen(down, up.node("sr"), retry=retry)
    assert storescu(listener.port, films[:3]) == films[:3]
    listener.wait_for("object confirmed", 3, node="pacs")
    listener.wait_for("object waits", node="down", reason="node_unreachable")
    assert listener.stop() == 0
    again = listen(down, up.node("sr"), retry=retry)
    again.wait_for("object waits", node="down")
    if way == "stow":
        archive = orthanc(HttpPort=port)
        again.wait_for("object confirmed", 3, node="down")
        assert len(archive.instances(Modality="SR")) == 3
    else:
        node = storescp(port=port)
        again.wait_for("object confirmed", 3, node="down")
        assert set(node.reports()) == {uid_of(film) for film in films[:3]}
    again.wait_for("film deleted", 3)


@contextmanager
def answering(*statuses: int) -> Iterator[dict[str, Any]]:
    """A node that answers with these statuses, the last one for ever."""
    left, ae = list(statuses), AE("NODE")
    for sop_class in SOP_CLASSES:
        ae.add_supported_context(sop_class)
    server = ae.start_server(
        ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, lambda _: left.pop(0) if left[1:] else left[0])]
    )
    assert server
    address = {"ae_title": "NODE", "host": "127.0.0.1", "port": server.server_address[1]}
    yield {"name": "pacs", "objects": ["sr"], **address}
    ae.shutdown()


def test_a_busy_node_is_asked_again(listen: Listen, films: list[Path]) -> None:
    with answering(0xA700, 0xA701, 0xB000) as node:
        listener = listen(node, retry={"first_s": 0.1})
        assert storescu(listener.port, films[:1]) == films[:1]
        listener.wait_for("film deleted")
        assert [line["reason"] for line in listener.of("object waits")] == ["node_busy", "node_busy"]


def test_what_a_node_refuses_is_listed_and_can_be_tried_again(listen: Listen, films: list[Path], uid_of: UidOf) -> None:
    def told(option: str) -> list[dict[str, Any]]:
        ran = subprocess.run([SCRIPT, "listen", option, listener.config], capture_output=True, text=True, check=True)
        return [json.loads(line) for line in ran.stdout.splitlines()]

    with answering(0xC000, 0x0000) as node:
        listener = listen(node)
        assert storescu(listener.port, films[:1]) == films[:1]
        listener.wait_for("object given up")
        (failed,) = told("--failed")
        assert (failed["film"], failed["kind"], failed["node"]) == (uid_of(films[0]), "sr", "pacs")
        assert (failed["reason"], failed["attempts"]) == ("node_refused", 1)
        assert "C000" in failed["message"]
        assert told("--retry") == [failed]
        listener.wait_for("film deleted")
        assert told("--failed") == []


def test_a_node_behind_tls(
    storescp: Node, films: list[Path], tmp_path: Path, one_box: Path, certificates: Callable[[str], Tls]
) -> None:
    ours, theirs, foreign = certificates("ours"), certificates("theirs"), certificates("foreign")
    node = storescp("+tls", theirs.key, theirs.cert, "+cf", ours.cert)
    with Localizer(one_box) as localizer:
        report = localizer.localize(films[0]).to_sr(films[0])
    report.save_as(tmp_path / "sr.dcm", enforce_file_format=True)

    def send(tls: Tls | None) -> None:
        client = StoreClient(
            ConfiguredNode("pacs", ("sr",), "NODE", "127.0.0.1", node.port, timeout_s=20, tls=tls), "MSLOC"
        )
        client.send(tmp_path / "sr.dcm")
        client.close()

    send(Tls(ours.cert, ours.key, theirs.cert))
    wait_until(node.reports, "the report")
    for wrong in (Tls(foreign.cert, foreign.key, theirs.cert), Tls(ours.cert, ours.key, foreign.cert), None):
        with pytest.raises(ListenError, match="no association") as raised:
            send(wrong)
        assert raised.value.reason == "node_unreachable"


@contextmanager
def behind_tls(port: int, own: Tls, callers: str, folder: Path) -> Iterator[int]:
    """A port with TLS for one without, by stunnel, which asks for a caller's certificate.

    Debian's Orthanc has TLS of its own, but ends at its first request.
    """
    if shutil.which("stunnel") is None:
        pytest.skip("stunnel is not installed (Debian: stunnel4)")
    secure, config = free_port(), folder / "stunnel.conf"
    config.write_text(
        f"foreground = yes\npid =\n[https]\naccept = 127.0.0.1:{secure}\nconnect = 127.0.0.1:{port}\n"
        f"cert = {own.cert}\nkey = {own.key}\nCAfile = {callers}\nverifyChain = yes\n"
    )
    with subprocess.Popen(["stunnel", config], stderr=subprocess.DEVNULL) as tunnel:
        try:
            wait_until(lambda: connects(secure), "stunnel")
            yield secure
        finally:
            tunnel.terminate()


def test_a_dicomweb_node_behind_tls(
    listen: Listen,
    orthanc: Callable[..., Orthanc],
    films: list[Path],
    tmp_path: Path,
    certificates: Callable[[str], Tls],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The node's certificate comes from a private authority, and it asks for ours."""
    ours, theirs, foreign = certificates("ours"), certificates("theirs"), certificates("foreign")
    archive, mine = orthanc(), {"cert": ours.cert, "key": ours.key}
    tls = {
        "right": {**mine, "ca": theirs.cert},
        "no certificate": {"ca": theirs.cert},
        "foreign certificate": {"cert": foreign.cert, "key": foreign.key, "ca": theirs.cert},
        "another authority": {**mine, "ca": foreign.cert},
        "public authorities": mine,
    }
    with behind_tls(archive.http, theirs, ours.cert, tmp_path) as port:
        url = f"https://127.0.0.1:{port}/dicom-web"
        nodes = [{"name": name, "objects": ["sr"], "url": url, "tls": files} for name, files in tls.items()]
        listener = listen(*nodes, retry={"first_s": 0.1})
        assert storescu(listener.port, films[:1]) == films[:1]
        listener.wait_for("object confirmed", node="right")
        for name in list(tls)[1:]:
            listener.wait_for("object waits", 2, node=name, reason="node_unreachable")
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", foreign.cert)  # counts for less than the configuration
        client = StowClient(ConfiguredNode("right", ("sr",), url=url, tls=Tls(**tls["right"])))
        client.send(next(listener.spool.glob("objects/*/sr.dcm")))
        client.close()
    (confirmed,) = listener.of("object confirmed")
    assert [stored["SOPInstanceUID"] for stored in archive.instances(Modality="SR")] == [confirmed["object"]]


def test_a_node_that_hangs_holds_up_no_other(listen: Listen, storescp: Node, films: list[Path]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as hanging:
        address = {"ae_title": "HANGS", "host": "127.0.0.1", "port": hanging.getsockname()[1], "timeout_s": 1.0}
        node = storescp()
        listener = listen({"name": "hangs", "objects": ["sr"], **address}, node.node("sr"), retry={"first_s": 0.1})
        assert storescu(listener.port, films[:2]) == films[:2]
        listener.wait_for("object confirmed", 2, node="pacs")
        listener.wait_for("object waits", 2, node="hangs", reason="node_unreachable")
        assert listener.stop() == 0
    without = listen(node.node("sr"))
    assert len(without.wait_for("delivery withdrawn", 2)) == 2
    without.wait_for("film deleted", 2)


@pytest.mark.parametrize("die_at", [9, -2, -6, -11, -17, -26, -38, -50])
def test_kill(listen: Listen, storescp: Node, films: list[Path], uid_of: UidOf, die_at: int) -> None:
    """Whatever step the listener is killed at, what it acknowledged arrives, under one UID."""
    node, sent = storescp(), films[:2]
    listener = listen(node.node("sr", "seg"), die_at=die_at)
    wait_until(lambda: listener.of("listening") or not listener.process.is_alive(), "a start or an end")
    acknowledged = storescu(listener.port, sent) if listener.of("listening") else []
    wait_until(lambda: not listener.process.is_alive() or len(listener.of("film deleted")) == 2, "the kill")
    assert not listener.process.is_alive(), "it had fewer steps"
    again = listen(node.node("sr", "seg"))
    storescu(again.port, [film for film in sent if film not in acknowledged])  # as a modality does: once more
    wait_until(lambda: not waiting(again), "the rest")
    reports = node.reports()
    assert set(reports) == {uid_of(film) for film in sent}
    assert all(len(uids) == 1 for uids in reports.values())
    assert len(node.objects) == 4
    assert not list((again.spool / "films").iterdir())


def waiting(listener: Listener) -> dict[str, float]:
    """What the journal has that is not deleted yet."""
    lines = [line for line in listener.get("/metrics")[1].splitlines() if line.startswith("msloc_queue{")]
    return {line.split('"')[1]: float(line.split()[-1]) for line in lines if '"deleted"' not in line}


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
def test_hostile_films_end_as_failures_with_a_reason(
    listen: Listen, storescp: Node, films: list[Path], tmp_path: Path
) -> None:
    folder = ROOT.parent / "shared" / "cases" / "hostile"
    if not folder.is_dir():
        pytest.skip(f"the cases are not here: {folder}")
    node = storescp()
    listener = listen(node.node("sr", "seg"))
    hostile: dict[str, str] = {}
    for path in sorted(folder.glob("*.dcm")):
        film = pydicom.dcmread(path, force=True)
        film.SOPClassUID = film.file_meta.MediaStorageSOPClassUID = ComputedRadiographyImageStorage
        film.SOPInstanceUID = film.file_meta.MediaStorageSOPInstanceUID = generate_uid(None)
        film.StudyInstanceUID, film.SeriesInstanceUID = generate_uid(None), generate_uid(None)
        film.save_as(tmp_path / path.name)
        hostile[path.stem] = str(film.SOPInstanceUID)
        assert status_of(listener.port, tmp_path / path.name) == 0x0000, path.name
    assert storescu(listener.port, films[:1]) == films[:1]
    listener.wait_for("film deleted", len(hostile) + 1)
    reasons = {line["film"]: line["reason"] for line in listener.of("film localized")}
    assert all(reasons[uid] for uid in hostile.values())
    reports = node.reports()
    assert all(len(reports[uid]) == 1 for uid in hostile.values())
    assert len(node.objects) == len(hostile) + 2  # the good film has a segmentation, too
    told = json.dumps(listener.events)
    assert "ZZ" not in told  # as the invented names in one of them begin


def status_of(port: int, path: Path) -> int | None:
    """Status of one film, its data set sent byte for byte."""
    from pynetdicom import _config

    meta = pydicom.filereader.read_file_meta_info(path)
    ae = AE("MODALITY")
    ae.add_requested_context(meta.MediaStorageSOPClassUID, [meta.TransferSyntaxUID])
    association = ae.associate("127.0.0.1", port, ae_title="MSLOC_EDGE")
    assert association.is_established, path.name
    _config.STORE_SEND_CHUNKED_DATASET = True
    try:
        return association.send_c_store(path).get("Status")
    finally:
        _config.STORE_SEND_CHUNKED_DATASET = False
        association.release()


def test_the_command_serves_and_a_second_one_is_refused(
    storescp: Node, films: list[Path], tmp_path: Path, one_box: Path
) -> None:
    from dicom_peers import write_toml

    node, port = storescp(), free_port()
    receive, model = {"port": port}, {"model": str(one_box)}
    tables = {"spool": str(tmp_path / "spool"), "receive": receive, "metrics": {"port": 0}, "model": model}
    config = write_toml(tmp_path / "listen.toml", {**tables, "nodes": [node.node("sr")]})
    first = subprocess.Popen([SCRIPT, "listen", config], stdout=subprocess.PIPE, text=True)
    assert first.stdout
    try:
        assert json.loads(first.stdout.readline())["event"] == "listening"
        assert storescu(port, films[:1]) == films[:1]
        second = subprocess.run(
            [SCRIPT, "listen", config], capture_output=True, text=True, check=False, timeout=PATIENCE
        )
        assert (second.returncode, second.stdout) == (1, "")
        assert second.stderr.startswith("msloc-edge: [spool_taken]")
        elsewhere = write_toml(
            tmp_path / "b.toml", {**tables, "spool": str(tmp_path / "b"), "nodes": [node.node("sr")]}
        )
        third = subprocess.run(
            [SCRIPT, "listen", elsewhere], capture_output=True, text=True, check=False, timeout=PATIENCE
        )
        assert third.returncode == 1
        assert third.stderr.startswith("msloc-edge: [address_taken]")
        wait_until(node.reports, "the report")
    finally:
        first.terminate()
        events = [json.loads(line)["event"] for line in first.stdout]
        assert first.wait(PATIENCE) == 0
        first.stdout.close()
    assert events[-2:] == ["stopping", "stopped"]
