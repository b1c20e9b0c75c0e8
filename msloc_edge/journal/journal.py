"""A queue of films in one SQLite file. What a call has written when it returns, no kill takes back.

    with Journal(folder / "journal.sqlite") as journal:
        journal.add(uid, sha256, "received")                  # once for each name and content, however often called
        while item := journal.take("received", hold_s=300):   # no other worker gets it for so long
            try:
                ...
                journal.advance(item, "localized")            # at once the next worker's: take("localized", ...)
            except MslocError as error:
                journal.fail(item, error.reason, error.message, retry_s=60)

A step is a word of the caller's; it names what is done. A worker that dies leaves its item to others when `hold_s` is
over, so a step may run twice and must bear it. One item becomes several (a film that goes to three nodes) by adding
those first, then advancing this: adding again does nothing.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from msloc_edge.errors import OutputError

_APPLICATION, _VERSION = 0x6D736C6F, 1  # "mslo"
_COLUMNS = "id, name, content, step, attempts, due, reason, message, facts, added"
_SCHEMA = f"""
    BEGIN IMMEDIATE;
    CREATE TABLE IF NOT EXISTS items (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        name TEXT NOT NULL,
        content TEXT NOT NULL,
        step TEXT NOT NULL,
        attempts INTEGER NOT NULL DEFAULT 0,
        due REAL,
        held INTEGER NOT NULL DEFAULT 0,
        reason TEXT NOT NULL DEFAULT '',
        message TEXT NOT NULL DEFAULT '',
        facts TEXT NOT NULL,
        added REAL NOT NULL,
        UNIQUE (name, content)
    );
    CREATE INDEX IF NOT EXISTS by_content ON items (content);
    CREATE INDEX IF NOT EXISTS by_due ON items (step, due);
    CREATE TABLE IF NOT EXISTS settings (value TEXT NOT NULL);
    PRAGMA application_id = {_APPLICATION};
    PRAGMA user_version = {_VERSION};
    COMMIT;
"""
_BUSY_S = 30.0


@dataclass(frozen=True, slots=True)
class Item:
    """One film on its way, as it was when it was looked at.

    name      path, UID or whatever the caller tells films apart by
    content   sha256 of its bytes, hex
    step      last step that is done
    attempts  failures since that step, and workers that died with it (`release`)
    due       Unix time from which it may be taken; None: it failed and is not tried again
    reason    reason code of the last failure since that step, or ""
    message   its sentence
    facts     what the steps left for those after them, JSON types
    added     Unix time at which it came
    """

    id: int
    name: str
    content: str
    step: str
    attempts: int
    due: float | None
    reason: str
    message: str
    facts: Mapping[str, Any]
    added: float

    @property
    def failed(self) -> bool:
        """Whether it was given up."""
        return self.due is None


class Journal:
    """The journal in the file `path`, which is made where it is missing. Safe between threads and between processes.

    exclusive  nobody else may open the file until this journal is closed or its process has ended
    durable    a call returns when the disk has its change: nothing is lost when the power goes; False: only kills
               are survived, which is enough for what can be made again
    clock      seconds since 1970

    Raises OutputError: out_occupied (another has it, exclusively), journal_unusable (damaged, of a newer version, or
    no journal), disk_full, out_unwritable; every method raises these, too.
    """

    def __init__(
        self, path: Path, exclusive: bool = False, durable: bool = True, clock: Callable[[], float] = time.time
    ) -> None:
        self._path, self._clock = path, clock
        self._lock = threading.Lock()
        with _faults(path):
            self._db = sqlite3.connect(
                path, timeout=0 if exclusive else _BUSY_S, isolation_level=None, check_same_thread=False
            )
            try:
                self._open(exclusive, durable)
            except BaseException:
                self._db.close()
                raise

    def _open(self, exclusive: bool, durable: bool) -> None:
        self._db.text_factory = _decode
        if exclusive:
            self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
        self._db.execute("BEGIN")  # one look: another process may be making the file
        ours = self._pragma("application_id"), self._pragma("user_version")
        tables = self._db.execute("SELECT * FROM sqlite_master").fetchall()
        self._db.execute("COMMIT")
        if ours == (0, 0) and not tables:
            self._db.execute("PRAGMA page_size = 1024")  # what each commit writes
            self._use_wal(0 if exclusive else _BUSY_S)
            self._db.executescript(_SCHEMA)
        elif ours != (_APPLICATION, _VERSION):
            raise OutputError(
                "journal_unusable",
                f"{self._path}: expected a journal of version {_VERSION}, got another file; move it away.",
            )
        self._db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
        if exclusive:
            self._db.executescript("BEGIN IMMEDIATE; COMMIT")

    def _use_wal(self, wait_s: float) -> None:
        """Keep the log of changes beside the file; a file system without that keeps its own way.

        SQLite does not wait here for another process that is making the file, so this does.
        """
        give_up = time.monotonic() + wait_s
        while True:
            try:
                self._db.execute("PRAGMA journal_mode = WAL").fetchall()
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() >= give_up:
                    raise
            time.sleep(0.01)

    def _pragma(self, name: str) -> int:
        return int(self._db.execute(f"PRAGMA {name}").fetchone()[0])

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; closing twice does nothing."""
        with self._lock, _faults(self._path):
            self._db.close()

    def add(self, name: str, content: str, step: str, facts: Mapping[str, Any] | None = None) -> Item:
        """Put in a film that has done `step`, to be taken at once; one of this name and content is left as it is."""
        now = self._clock()
        return self._one(
            "INSERT INTO items (name, content, step, due, facts, added)"
            " VALUES (CAST(? AS TEXT), CAST(? AS TEXT), ?, ?, ?, ?)"
            " ON CONFLICT (name, content) DO UPDATE SET name = name",  # so that RETURNING has its row
            (_encode(name), _encode(content), step, now, json.dumps(dict(facts or {})), now),
        )

    def take(self, step: str, hold_s: float, since: float = 0.0) -> Item | None:
        """Take the item that has done `step` and was due first, for `hold_s` seconds; None where none is due.

        since  only items that came at or after this Unix time
        """
        now = self._clock()
        taken = self._run(
            "UPDATE items SET held = 1, due = ? WHERE id = (SELECT id FROM items"
            f" WHERE step = ? AND due <= ? AND added >= ? ORDER BY due, id LIMIT 1) RETURNING {_COLUMNS}",
            (now + hold_s, step, now, since),
        )
        return taken[0] if taken else None

    def advance(self, item: Item, step: str, facts: Mapping[str, Any] | None = None) -> Item:
        """Note that `step` is done, and add to the item's facts; it can be taken at once, and its failures are gone."""
        return self._one(
            "UPDATE items SET step = ?, facts = ?, due = ?, held = 0, attempts = 0, reason = '', message = ''"
            " WHERE id = ?",
            (step, json.dumps({**item.facts, **(facts or {})}), self._clock(), item.id),
        )

    def fail(self, item: Item, reason: str, message: str, retry_s: float | None = None) -> Item:
        """Note a failure: the item can be taken again in `retry_s` seconds; None gives it up."""
        due = None if retry_s is None else self._clock() + retry_s
        return self._one(
            "UPDATE items SET attempts = attempts + 1, due = ?, held = 0, reason = ?, message = CAST(? AS TEXT)"
            " WHERE id = ?",
            (due, reason, _encode(message), item.id),
        )

    def retry(self, item: Item) -> Item:
        """Let an item be taken at once that failed or is waiting; its attempts count from 0."""
        return self._one("UPDATE items SET due = ?, held = 0, attempts = 0 WHERE id = ?", (self._clock(), item.id))

    def release(self) -> None:
        """Let all items be taken at once that dead workers hold: for the start of a program that has no others.

        Each counts as an attempt, so that an item that ends its worker every time can be told.
        """
        self._run("UPDATE items SET due = ?, held = 0, attempts = attempts + 1 WHERE held", (self._clock(),))

    def forget(self, item: Item) -> None:
        """Remove an item; its name and content are new again."""
        self._run("DELETE FROM items WHERE id = ?", (item.id,))

    def find(
        self,
        name: str | None = None,
        content: str | None = None,
        step: str | None = None,
        failed: bool | None = None,
        limit: int = -1,
    ) -> list[Item]:
        """List the items with this name, content and last step, and given up or not, in the order in which they came.

        limit  at most so many; -1: all
        """
        wanted: dict[str, Any] = {
            "name = CAST(? AS TEXT)": None if name is None else _encode(name),
            "content = CAST(? AS TEXT)": None if content is None else _encode(content),
            "step = ?": step,
            "(due IS NULL) = ?": failed,
        }
        wanted = {clause: value for clause, value in wanted.items() if value is not None}
        where = " AND ".join(wanted) or "1"
        return self._run(f"SELECT {_COLUMNS} FROM items WHERE {where} ORDER BY id LIMIT ?", (*wanted.values(), limit))

    def counts(self) -> dict[str, int]:
        """Count the items by their last step; those that were given up count as "failed"."""
        with self._lock, _faults(self._path):
            rows = self._db.execute(
                "SELECT CASE WHEN due IS NULL THEN 'failed' ELSE step END AS state, COUNT(*) FROM items"
                " GROUP BY state ORDER BY state"
            ).fetchall()
        return dict(rows)

    def settings(self, settings: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Note what this journal's work is done with, once; returns what was noted first, {} where nothing was."""
        with self._lock, _faults(self._path):
            if settings is not None:
                self._db.execute(
                    "INSERT INTO settings SELECT ? WHERE NOT EXISTS (SELECT * FROM settings)",
                    (json.dumps(dict(settings)),),
                )
            noted = self._db.execute("SELECT value FROM settings").fetchone()
        return dict(json.loads(noted[0])) if noted else {}

    def clear(self) -> None:
        """Forget all items and the settings."""
        with self._lock, _faults(self._path):
            self._db.executescript("BEGIN IMMEDIATE; DELETE FROM items; DELETE FROM settings; COMMIT")

    def _one(self, statement: str, values: Sequence[Any]) -> Item:
        found = self._run(f"{statement} RETURNING {_COLUMNS}", values)
        if not found:
            raise LookupError("expected an item of this journal, got one that was forgotten")
        return found[0]

    def _run(self, statement: str, values: Sequence[Any]) -> list[Item]:
        with self._lock, _faults(self._path):
            rows = self._db.execute(statement, values).fetchall()
        return [_item(dict(zip(_COLUMNS.split(", "), row, strict=True))) for row in rows]


def _item(row: dict[str, Any]) -> Item:
    return Item(**row | {"facts": json.loads(row["facts"])})


def _encode(text: str) -> bytes:
    """A file's name may hold bytes that are no characters."""
    return text.encode("utf-8", "surrogateescape")


def _decode(text: bytes) -> str:
    return text.decode("utf-8", "surrogateescape")


@contextmanager
def _faults(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into ours, each with what to do."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        words = str(error)
        if "locked" in words:
            raise OutputError(
                "out_occupied", f"{path}: another run works here; wait for its end, or choose another folder."
            ) from error
        if "full" in words:
            raise OutputError("disk_full", f"{path}: no space left; free some, or choose another folder.") from error
        if isinstance(error, sqlite3.OperationalError):
            raise OutputError(
                "out_unwritable", f"{path}: cannot be written ({words}); choose another folder."
            ) from error
        raise OutputError(
            "journal_unusable", f"{path}: expected a journal, got a damaged one; move it away."
        ) from error
