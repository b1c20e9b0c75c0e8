"""The journal against a model in memory, against kills, and between processes and threads."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from threading import Barrier
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from msloc_edge.errors import MslocError, OutputError
from msloc_edge.journal import Item, Journal


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def journal(tmp_path: Path, clock: Clock) -> Iterator[Journal]:
    with Journal(tmp_path / "journal.sqlite", clock=clock) as journal:
        yield journal


def test_the_way_of_a_film(journal: Journal, clock: Clock) -> None:
    journal.add("1.2.3", "ab", "received", {"from": "CR1"})
    item = journal.take("received", hold_s=60)
    assert item == Item(1, "1.2.3", "ab", "received", 0, 1060.0, "", "", {"from": "CR1"}, 1000.0)
    assert journal.take("received", hold_s=60) is None
    clock.now += 1
    item = journal.advance(item, "localized", {"line": "{}"})
    assert (item.step, item.due, item.facts) == ("localized", 1001.0, {"from": "CR1", "line": "{}"})
    assert journal.take("received", hold_s=60) is None
    assert journal.take("localized", hold_s=60) is not None
    assert journal.counts() == {"localized": 1}


def test_a_film_comes_once(journal: Journal) -> None:
    first = journal.advance(journal.add("a", "1", "received"), "localized")
    assert journal.add("a", "1", "received", {"other": 1}) == first
    assert journal.add("a", "2", "received") != journal.add("b", "1", "received")
    assert journal.counts() == {"localized": 1, "received": 2}


def test_failures_wait_then_are_given_up(journal: Journal, clock: Clock) -> None:
    journal.add("a", "1", "written")
    item = journal.take("written", hold_s=60)
    assert item
    item = journal.fail(item, "node_down", "no answer", retry_s=5)
    assert (item.attempts, item.due, item.reason, item.message, item.failed) == (
        1,
        1005.0,
        "node_down",
        "no answer",
        False,
    )
    assert journal.take("written", hold_s=60) is None
    clock.now = 1005
    item = journal.take("written", hold_s=60)
    assert item
    item = journal.fail(item, "node_down", "no answer")
    assert (item.attempts, item.step, item.failed) == (2, "written", True)
    clock.now += 1e9
    assert journal.take("written", hold_s=60) is None
    assert journal.counts() == {"failed": 1}
    assert journal.find(failed=True) == [item]
    assert journal.retry(item).attempts == 0
    assert journal.find(failed=True) == []
    taken = journal.take("written", hold_s=60)
    assert taken
    sent = journal.advance(taken, "sent")
    assert (sent.reason, sent.message, sent.attempts) == ("", "", 0)


def test_the_item_of_a_dead_worker_is_taken_again(journal: Journal, clock: Clock) -> None:
    journal.add("a", "1", "received")
    assert journal.take("received", hold_s=10)
    clock.now += 10
    assert journal.take("received", hold_s=10)
    assert journal.take("received", hold_s=10) is None
    waiting = journal.fail(journal.add("b", "1", "received"), "busy", "", retry_s=100)
    journal.release()
    taken = journal.take("received", hold_s=10)
    assert taken
    assert (taken.name, taken.attempts) == ("a", 1)
    assert journal.find(name="b") == [waiting]


def test_young_films_may_go_first(journal: Journal, clock: Clock) -> None:
    journal.add("old", "1", "received")
    clock.now += 100
    journal.add("young", "2", "received")
    order = [journal.take("received", 60, since=clock.now - 60), journal.take("received", 60, since=clock.now - 60)]
    assert [item and item.name for item in order] == ["young", None]
    rest = journal.take("received", 60)
    assert rest
    assert rest.name == "old"


def test_find(journal: Journal) -> None:
    for name, content in (("a", "1"), ("a", "2"), ("b", "1")):
        journal.add(name, content, "received")
    journal.advance(journal.find(name="a", content="2")[0], "written")
    assert [item.content for item in journal.find(name="a")] == ["1", "2"]
    assert [item.name for item in journal.find(content="1")] == ["a", "b"]
    assert [item.content for item in journal.find(step="written")] == ["2"]
    assert len(journal.find()) == 3
    assert len(journal.find(limit=2)) == 2
    journal.forget(journal.find(name="b")[0])
    assert journal.find(name="b") == []


def test_a_forgotten_item_cannot_go_on(journal: Journal) -> None:
    item = journal.add("a", "1", "received")
    journal.forget(item)
    with pytest.raises(LookupError):
        journal.advance(item, "written")


def test_settings_are_noted_once(journal: Journal, tmp_path: Path) -> None:
    assert journal.settings() == {}
    assert journal.settings({"model": "x"}) == {"model": "x"}
    assert journal.settings({"model": "y"}) == {"model": "x"}
    with Journal(tmp_path / "journal.sqlite") as again:
        assert again.settings({}) == {"model": "x"}


def test_a_cleared_journal_is_new(journal: Journal) -> None:
    journal.add("a", "1", "received")
    journal.settings({"model": "x"})
    journal.clear()
    assert (journal.counts(), journal.settings()) == ({}, {})


def test_names_that_are_no_text(journal: Journal) -> None:
    name = os.fsdecode(b"latin-\xe4\n'\".dcm")
    journal.fail(journal.add(name, "1", "received", {"path": name}), "corrupt", f"{name}: bad")
    (item,) = journal.find(name=name)
    assert (item.name, item.facts["path"], item.message) == (name, name, f"{name}: bad")


# A model of it in memory: any series of calls, with the journal opened anew in between


class Model(RuleBasedStateMachine):
    items = Bundle("items")

    @initialize(folder=st.builds(lambda: Path(os.environ["MSLOC_CACHE"]) / f"{random.SystemRandom().random()}.sqlite"))
    def begin(self, folder: Path) -> None:
        self.path, self.clock, self.model = folder, Clock(), dict[tuple[str, str], dict[str, Any]]()
        self.journal = Journal(self.path, clock=self.clock, durable=False)

    @rule(target=items, name=st.text(max_size=3), content=st.sampled_from("12"), step=st.sampled_from("xy"))
    def add(self, name: str, content: str, step: str) -> Item:
        new = {"step": step, "attempts": 0, "due": self.clock.now, "reason": "", "held": False, "facts": {"n": name}}
        self.model.setdefault((name, content), new)
        return self.journal.add(name, content, step, {"n": name})

    @rule(step=st.sampled_from("xy"), hold_s=st.sampled_from([0, 5]))
    def take(self, step: str, hold_s: float) -> None:
        item = self.journal.take(step, hold_s)
        due = [
            m for m in self.model.values() if m["step"] == step and m["due"] is not None and m["due"] <= self.clock.now
        ]
        assert (item is None) == (not due)
        if item:
            taken = self.model[item.name, item.content]
            assert taken in due
            assert taken["due"] == min(m["due"] for m in due)
            taken |= {"due": self.clock.now + hold_s, "held": True}

    @rule(item=items, step=st.sampled_from("xyz"))
    def advance(self, item: Item, step: str) -> None:
        (now,) = self.journal.find(name=item.name, content=item.content)
        self.journal.advance(now, step, {"step": step})
        self.model[item.name, item.content] |= {
            "step": step, "due": self.clock.now, "held": False, "attempts": 0, "reason": "",
            "facts": {"n": item.name, "step": step},
        }  # fmt: skip

    @rule(item=items, retry_s=st.sampled_from([None, 0, 5]))
    def fail(self, item: Item, retry_s: float | None) -> None:
        self.journal.fail(item, "corrupt", "words", retry_s)
        m = self.model[item.name, item.content]
        due = None if retry_s is None else self.clock.now + retry_s
        m |= {"attempts": m["attempts"] + 1, "due": due, "reason": "corrupt", "held": False}

    @rule(item=items)
    def retry(self, item: Item) -> None:
        self.journal.retry(item)
        self.model[item.name, item.content] |= {"due": self.clock.now, "attempts": 0, "held": False}

    @rule()
    def release(self) -> None:
        self.journal.release()
        for m in self.model.values():
            if m["held"]:
                m |= {"due": self.clock.now, "held": False, "attempts": m["attempts"] + 1}

    @rule()
    def wait(self) -> None:
        self.clock.now += 3

    @rule()
    def open_again(self) -> None:
        self.journal.close()
        self.journal = Journal(self.path, clock=self.clock, durable=False)

    @invariant()
    def same(self) -> None:
        if hasattr(self, "journal"):
            found = {
                (i.name, i.content): (i.step, i.attempts, i.due, i.reason, dict(i.facts)) for i in self.journal.find()
            }
            keys = ("step", "attempts", "due", "reason", "facts")
            assert found == {key: tuple(m[k] for k in keys) for key, m in self.model.items()}

    def teardown(self) -> None:
        if hasattr(self, "journal"):
            self.journal.close()
            self.path.unlink()


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)


# Others at the same time


def test_threads_share_the_work(journal: Journal) -> None:
    for number in range(60):
        journal.add(str(number), "1", "received")

    def work(_: int) -> list[str]:
        mine = []
        while item := journal.take("received", hold_s=1000):
            mine.append(journal.advance(item, "done").name)
        return mine

    with ThreadPoolExecutor(4) as pool:
        shares = list(pool.map(work, range(4)))
    assert sorted(chain.from_iterable(shares), key=int) == [str(number) for number in range(60)]


WORKER = """
import sys
from pathlib import Path
from msloc_edge.journal import Journal
with Journal(Path(sys.argv[1])) as journal:
    print("open", flush=True)
    sys.stdin.readline()
    while item := journal.take("received", hold_s=1000):
        journal.advance(item, "done", {"by": sys.argv[2]})
"""


def run(code: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def test_processes_share_the_work(tmp_path: Path) -> None:
    """All three make the file at once; then each film is taken by one of them."""
    path = tmp_path / "journal.sqlite"
    workers = [run(WORKER, path, number) for number in range(3)]
    assert [worker.stdout and worker.stdout.readline() for worker in workers] == ["open\n"] * 3
    with Journal(path) as journal:
        for number in range(60):
            journal.add(str(number), "1", "received")
        for worker in workers:
            worker.communicate("go\n", timeout=120)
            assert worker.returncode == 0
        assert journal.counts() == {"done": 60}


def test_many_make_the_file_at_once(tmp_path: Path) -> None:
    together = Barrier(4)

    def make(path: Path) -> str:
        together.wait(timeout=60)
        with Journal(path, durable=False) as journal:
            return journal.add("a", "1", "received").name

    with ThreadPoolExecutor(4) as pool:
        for number in range(50):
            path = tmp_path / f"{number}.sqlite"
            assert list(pool.map(make, [path] * 4)) == ["a"] * 4


def test_an_exclusive_journal_is_one_process_own(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    hold = "import sys\nfrom pathlib import Path\nfrom msloc_edge.journal import Journal\n"
    hold += "j = Journal(Path(sys.argv[1]), exclusive=True)\nprint('open', flush=True)\nsys.stdin.readline()"
    holder = run(hold, path)
    assert holder.stdout
    assert holder.stdout.readline() == "open\n"
    with pytest.raises(OutputError, match="another run works here") as refused:
        Journal(path, exclusive=True)
    assert refused.value.reason == "out_occupied"
    holder.kill()  # the lock goes with its process
    holder.communicate()
    with Journal(path, exclusive=True), pytest.raises(OutputError, match="another run works here"):
        Journal(path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["journal.sqlite"]


KILLED = """
import itertools, sys
from pathlib import Path
from msloc_edge.journal import Journal
journal = Journal(Path(sys.argv[1]))
for number in itertools.count(int(sys.argv[2])):
    journal.add(str(number), "1", "received")
    print("added", number, flush=True)
    item = journal.take("received", hold_s=1000)
    journal.advance(item, "localized")
    print("localized", item.name, flush=True)
"""


@pytest.mark.parametrize("seed", range(3))
def test_what_was_acknowledged_survives_a_kill(tmp_path: Path, seed: int) -> None:
    path, said = tmp_path / "journal.sqlite", list[str]()
    for life in range(2):
        process = run(KILLED, path, 10_000 * life)
        assert process.stdout
        said.append(process.stdout.readline())
        time.sleep(random.Random(10 * seed + life).uniform(0.01, 0.3))
        process.send_signal(signal.SIGKILL)
        said += process.communicate()[0].splitlines()
    with Journal(path) as journal:
        steps = {item.name: item.step for item in journal.find()}
    words = [line.split() for line in said if line.count(" ") == 1]
    assert len(words) > 4
    assert {number for word, number in words} <= set(steps)
    assert all(steps[number] == "localized" for word, number in words if word == "localized")


# Files that are none


def _garbage(path: Path) -> None:
    path.write_bytes(b"no journal" * 1000)


def _other_database(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE films (name)")
    db.close()


def _newer(path: Path) -> None:
    Journal(path).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 2")
    db.close()


@pytest.mark.parametrize("make", [_garbage, _other_database, _newer])
def test_a_file_that_is_no_journal(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "journal.sqlite")
    before = (tmp_path / "journal.sqlite").read_bytes()
    with pytest.raises(MslocError, match="move it away") as refused:
        Journal(tmp_path / "journal.sqlite")
    assert refused.value.reason == "journal_unusable"
    assert (tmp_path / "journal.sqlite").read_bytes() == before


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written") as refused:
        Journal(tmp_path / "nowhere" / "journal.sqlite")
    assert refused.value.reason == "out_unwritable"
