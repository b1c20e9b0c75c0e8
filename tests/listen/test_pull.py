"""Films that an archive has already: found by date, sent to the running listener, asked for once."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydicom
import pytest
from dicom_peers import Listener, Orthanc, StoreScp, connects, free_port, storescu, wait_until, write_toml

from msloc_edge.errors import ListenError
from msloc_edge.journal import Journal
from msloc_edge.listen.log import Log
from msloc_edge.listen.pull import days_of, wait_for_room
from msloc_edge.listen.queue import RECEIVED

SCRIPT = Path(sys.executable).with_name("msloc-edge")


def pull(config: Path, dates: str) -> tuple[int, list[dict[str, Any]], str]:
    """Exit status, log and stderr of `listen --pull`."""
    ran = subprocess.run([SCRIPT, "listen", "--pull", dates, config], capture_output=True, text=True, check=False)
    return ran.returncode, [json.loads(line) for line in ran.stdout.splitlines()], ran.stderr


def dated(film: Path, folder: Path, day: str, modality: str = "DX") -> bytes:
    """A film of a day."""
    dataset = pydicom.dcmread(film)
    dataset.StudyDate, dataset.Modality = day, modality
    dataset.save_as(folder / "film.dcm")
    return (folder / "film.dcm").read_bytes()


def days(lines: list[dict[str, Any]]) -> list[tuple[str, int, int]]:
    return [(line["day"], line["asked"], line["failed"]) for line in lines]


def test_a_range_is_pulled_once_and_goes_on(
    listen: Callable[..., Listener],
    orthanc: Callable[..., Orthanc],
    storescp: Callable[..., StoreScp],
    films: list[Path],
    tmp_path: Path,
    uid_of: Callable[[Path], str],
) -> None:
    port, node = free_port(), storescp()
    archive = orthanc(DicomModalities={"msloc-edge": ["MSLOC_EDGE", "127.0.0.1", port]}, DicomScuTimeout=2)
    for film, day in zip(films, ("20260130", "20260131", "20260131", "20260202"), strict=False):
        archive.ask("/instances", dated(film, tmp_path, day))
    archive.ask("/instances", dated(films[4], tmp_path, "20260131", modality="MG"))
    tables: dict[str, Any] = {
        "receive": {"port": port},
        "archive": {"ae_title": "ORTHANC", "host": "127.0.0.1", "port": archive.port},
    }
    listener = listen(node.node("sr"), **tables)
    listener.wait_for("listening")
    assert days(pull(listener.config, "20260130")[1]) == [("2026-01-30", 1, 0)]
    listener.wait_for("film deleted")
    listener.kill()  # the range is interrupted: nobody takes what the archive sends
    status, lines, said = pull(listener.config, "20260130-20260131")
    assert (status, days(lines)) == (1, [("2026-01-30", 0, 0)])
    assert said.startswith("msloc-edge: [node_refused] archive: refused with status ")
    again = listen(node.node("sr"), **tables)
    again.wait_for("listening")
    status, lines, _ = pull(again.config, "20260130-20260131")
    assert (status, days(lines)) == (0, [("2026-01-30", 0, 0), ("2026-01-31", 2, 0)])
    again.wait_for("film deleted", 2)
    assert days(pull(again.config, "20260129-20260201")[1]) == [
        ("2026-01-29", 0, 0), ("2026-01-30", 0, 0), ("2026-01-31", 0, 0), ("2026-02-01", 0, 0),
    ]  # fmt: skip
    assert {film: len(uids) for film, uids in node.reports().items()} == {uid_of(film): 1 for film in films[:3]}


@pytest.mark.skipif(shutil.which("dcmqrscp") is None, reason="dcmqrscp is missing (Debian: dcmtk)")
def test_films_that_the_archive_cannot_send_are_counted(
    listen: Callable[..., Listener], films: list[Path], tmp_path: Path
) -> None:
    """With DCMTK's archive, which goes on after a failure, and a listener that has no room."""
    port, at, folder = free_port(), free_port(), tmp_path / "archive"
    folder.mkdir()
    (tmp_path / "dcmqrscp.cfg").write_text(
        f"NetworkTCPPort = {at}\nMaxPDUSize = 16384\nMaxAssociations = 4\n"
        f"HostTable BEGIN\nedge = (MSLOC_EDGE, 127.0.0.1, {port})\nHostTable END\n"
        f"VendorTable BEGIN\nVendorTable END\nAETable BEGIN\nARCHIVE {folder} RW (9, 9mb) ANY\nAETable END\n"
    )
    sent = [tmp_path / "0.dcm", tmp_path / "1.dcm"]
    for film, path in zip(films, sent, strict=False):
        path.write_bytes(dated(film, tmp_path, "20260130"))
    with subprocess.Popen(["dcmqrscp", "-c", tmp_path / "dcmqrscp.cfg"], stderr=subprocess.DEVNULL) as archive:
        try:
            wait_until(lambda: connects(at), "dcmqrscp")
            assert storescu(at, sent, ae_title="ARCHIVE") == sent
            full = listen(
                {"name": "pacs", "objects": ["sr"], "ae_title": "NODE", "host": "127.0.0.1", "port": free_port()},
                receive={"port": port},
                limits={"free_disk_mb": 1 << 30},
                archive={"ae_title": "ARCHIVE", "host": "127.0.0.1", "port": at},
            )
            full.wait_for("listening")
            status, lines, said = pull(full.config, "20260130")
        finally:
            archive.terminate()
    assert (status, days(lines), said) == (1, [("2026-01-30", 2, 2)], "")


def test_an_archive_that_does_not_answer(tmp_path: Path) -> None:
    node = {"name": "pacs", "objects": ["sr"], "ae_title": "NODE", "host": "127.0.0.1", "port": free_port()}
    archive = {"ae_title": "ARCHIVE", "host": "127.0.0.1", "port": free_port()}
    spool = str(tmp_path / "spool")
    config = write_toml(tmp_path / "with.toml", {"spool": spool, "nodes": [node], "archive": archive})
    status, lines, said = pull(config, "20260130")
    assert (status, lines) == (1, [])
    assert said.startswith("msloc-edge: [node_unreachable] archive: no association")
    status, _, said = pull(config, "20260132")
    assert (status, "expected days such as 20260101-20260131, got '20260132'" in said) == (2, True)
    status, _, said = pull(write_toml(tmp_path / "without.toml", {"spool": spool, "nodes": [node]}), "20260130")
    assert (status, "--pull needs a table [archive] in CONFIG" in said) == (2, True)


def test_a_listener_that_localizes_nothing_is_not_waited_for(tmp_path: Path) -> None:
    said = io.StringIO()
    with Journal(tmp_path / "journal.sqlite") as journal:
        for number in range(3):
            journal.add(str(number), "1", RECEIVED)
        wait_for_room(journal, 3, Log(said))
        assert said.getvalue() == ""
        with pytest.raises(
            ListenError, match="listener: 3 films wait, and none was localized lately; start it"
        ) as ended:
            wait_for_room(journal, 2, Log(said), stalled_s=0)
        assert ended.value.reason == "node_busy"
        (line,) = said.getvalue().splitlines()
        assert (json.loads(line)["event"], json.loads(line)["waiting"]) == ("waiting for room", 3)


@pytest.mark.parametrize("dates", ["", "2026-01-30", "20260131-20260130", "20260101-20260102-20260103", "2026011"])
def test_what_is_no_range(dates: str) -> None:
    with pytest.raises(ValueError, match=r"does not match format|unconverted data|expected days of eight digits"):
        days_of(dates)
