"""The order and the ends of the way, without a network: who goes first, what is kept, what ends the program."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from msloc_edge.journal import Journal
from msloc_edge.listen.config import Keep, ListenConfig, Node
from msloc_edge.listen.keep import Keeper
from msloc_edge.listen.log import Log
from msloc_edge.listen.metrics import Metrics
from msloc_edge.listen.queue import CONFIRMED, DELETED, DELIVERED, PASSED_OVER, RECEIVED, ROUTED, take, waiting_for
from msloc_edge.listen.spool import Spool
from msloc_edge.listen.workers import MAX_ATTEMPTS, Worker
from msloc_edge.pipeline import Localizer


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool")


@pytest.fixture
def journal(spool: Spool) -> Iterator[Journal]:
    with spool.open_journal() as journal:
        yield journal


def test_young_films_go_before_a_backlog(spool: Spool, journal: Journal) -> None:
    with Journal(spool.folder / "journal.sqlite", clock=lambda: time.time() - 100) as earlier:
        for name in ("old", "older"):
            earlier.add(name, name, RECEIVED)
    for name in ("young", "younger"):
        journal.add(name, name, RECEIVED)
    order = [item.name for item in iter(lambda: take(journal, RECEIVED), None)]
    assert order == ["young", "younger", "old", "older"]


def keep(spool: Spool, journal: Journal, **days: float) -> None:
    Keeper(Keep(**days), spool, journal, Log(io.StringIO())).work()


def test_files_and_records_have_their_time(spool: Spool, journal: Journal) -> None:
    spool.name_film(spool.write_unnamed(b"film"), "1.2")
    spool.write_objects("1.2", {"sr": b"report"})
    journal.advance(journal.add("1.2", "c", RECEIVED), CONFIRMED)
    journal.advance(journal.add("1.3 for pacs", "c", waiting_for("pacs"), {"node": "pacs"}), DELIVERED)
    journal.add("1.4", "d", PASSED_OVER)
    keep(spool, journal, files_hours=1.0)
    assert spool.object("1.2", "sr").read_bytes() == b"report"
    keep(spool, journal)
    assert not spool.object("1.2", "sr").exists()
    assert not spool.film("1.2").exists()
    assert journal.counts() == {DELETED: 1, PASSED_OVER: 1}
    keep(spool, journal, records_days=1e-9)
    assert journal.counts() == {}


def test_what_a_crash_left_is_cleaned(spool: Spool, journal: Journal) -> None:
    spool.write_unnamed(b"half")
    spool.name_film(spool.write_unnamed(b"never journalled"), "1.1")
    spool.name_film(spool.write_unnamed(b"film"), "1.2")
    spool.write_objects("1.2", {"sr": b"report"})
    journal.add("1.2", "c", RECEIVED)
    spool.clean(journal)
    assert [path.name for path in (spool.folder / "films").iterdir()] == ["1.2.dcm"]
    assert spool.object("1.2", "sr").exists()


def test_objects_are_replaced_as_a_whole(spool: Spool) -> None:
    spool.write_objects("1.2", {"sr": b"1", "seg": b"1"})
    spool.write_objects("1.2", {"sr": b"2"})
    assert [path.name for path in (spool.folder / "objects" / "1.2").iterdir()] == ["sr.dcm"]
    assert spool.object("1.2", "sr").read_bytes() == b"2"


@pytest.fixture
def worker(spool: Spool, journal: Journal, one_box: Path) -> Iterator[Worker]:
    node = Node("pacs", ("sr", "seg"), "PACS", "127.0.0.1", 104)
    with Localizer(one_box) as localizer:
        log = Log(io.StringIO())
        yield Worker(ListenConfig("", nodes=(node,)), localizer, spool, journal, Metrics(), log, lambda: None)


def received(spool: Spool, journal: Journal, film: Path, uid: str) -> None:
    spool.name_film(spool.write_unnamed(film.read_bytes()), uid)
    journal.add(uid, "c", RECEIVED)


def test_a_film_that_ends_the_program_again_and_again_is_not_analysed(
    worker: Worker, spool: Spool, journal: Journal, films: list[Path], uid_of: Callable[[Path], str]
) -> None:
    uid = uid_of(films[0])
    received(spool, journal, films[0], uid)
    for _ in range(MAX_ATTEMPTS):
        assert take(journal, RECEIVED)
        journal.release()
    assert worker.work()
    (film,) = journal.find(name=uid)
    assert (film.step, film.facts["reason"], list(film.facts["objects"])) == (ROUTED, "internal_error", ["sr"])
    assert [item.step for item in journal.find(content="c")] == [ROUTED, waiting_for("pacs")]


def test_a_full_disk_is_waited_for(
    worker: Worker, spool: Spool, journal: Journal, films: list[Path], uid_of: Callable[[Path], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    uid = uid_of(films[0])
    received(spool, journal, films[0], uid)

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("msloc_edge.listen.spool.os.fsync", fail)
        for _ in range(MAX_ATTEMPTS + 1):
            assert worker.work()
            (film,) = journal.find(name=uid)
            assert (film.step, film.reason) == (RECEIVED, "out_unwritable")
            journal.fail(film, film.reason, "", 0)  # its pause is over
    assert worker.work()
    (film,) = journal.find(name=uid)
    assert (film.step, film.facts["reason"], sorted(film.facts["objects"])) == (ROUTED, "", ["seg", "sr"])
    assert not worker.work()
