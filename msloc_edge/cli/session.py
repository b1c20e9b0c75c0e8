"""A run of `infer`: films through the localizer, each result to its place, and the table at the end."""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from msloc_edge.cli.inputs import STDIN, Source
from msloc_edge.cli.output import REPORT, OutputFolder, print_line
from msloc_edge.errors import MslocError, OutputError
from msloc_edge.imaging.preprocess import Prepared
from msloc_edge.pipeline import Localizer, Outcome, in_order
from msloc_edge.result import Result

TABLE_ROWS = 40


class Session:
    """Localizes films, keeps their order, names every failure, goes on after it unless `fail_fast`."""

    def __init__(
        self,
        localizer: Localizer,
        folder: OutputFolder | None,
        progress: Progress,
        batch: int,
        workers: int,
        frame: int | None,
        fail_fast: bool,
    ) -> None:
        self.done, self.failed, self.stopped = 0, 0, False
        self._localizer, self._folder, self._progress = localizer, folder, progress
        self._batch, self._workers, self._frame, self._fail_fast = batch, workers, frame, fail_fast
        self._to_stdout = folder is None or not sys.stdout.isatty()
        self._rows: list[tuple[str, str, str]] = []
        self._stdin = b""

    def localize(self, sources: list[Source]) -> None:
        """Localize `sources`; their files are written by one thread while the engine runs on."""
        task = self._progress.add_task("films", total=len(sources))
        if any(source.path == STDIN for source in sources):
            self._stdin = sys.stdin.buffer.read()  # here: a thread that waits for stdin could not be interrupted
        with (
            closing(self._localizer.stream(sources, self._load, self._batch, self._workers)) as outcomes,
            ThreadPoolExecutor(1, thread_name_prefix="write") as pool,
            closing(in_order(pool, self._write, outcomes, ahead=2)) as written,
        ):
            for outcome, files in written:
                error = outcome.error or (files if isinstance(files, MslocError) else None)
                if error:
                    self._fail(outcome.film, error)
                elif outcome.prepared and outcome.result and isinstance(files, dict):
                    self._finish(outcome.film, outcome.prepared, outcome.result, files)
                self._progress.advance(task)
                if self.stopped:
                    break
        self._progress.remove_task(task)

    def _load(self, source: Source) -> Prepared:
        return self._localizer.prepare(self._stdin if source.path == STDIN else source.path, self._frame)

    def _write(self, outcome: Outcome[Source]) -> dict[str, str]:
        if self._folder and outcome.prepared and outcome.result:
            return self._folder.write(outcome.film, outcome.prepared, outcome.result)
        return {}

    def _finish(self, source: Source, film: Prepared, result: Result, files: dict[str, str]) -> None:
        record = result.to_dict()
        if files:
            record["files"] = files
        line = json.dumps(record)
        if self._folder:
            try:
                self._folder.add(line, film, result, files)
            except OutputError as error:
                self._fail(source, error)
                return
        if self._to_stdout:
            print_line(line)
        self.done += 1
        self._row(source, result, files)

    def _fail(self, source: Source, error: MslocError) -> None:
        self._say(source, error)
        self.failed += 1
        self.stopped = self._fail_fast
        if self._folder:
            try:
                self._folder.add_failure(source, error)
            except OutputError as unwritable:
                if unwritable.message != error.message:
                    self._say(source, unwritable)

    def _say(self, source: Source, error: MslocError) -> None:
        film = "" if source.path in error.message else f"{source.path}: "
        self._progress.console.print(
            f"msloc-edge: [{error.reason}] {film}{error.message}", markup=False, soft_wrap=True
        )

    def _row(self, source: Source, result: Result, files: dict[str, str]) -> None:
        if len(self._rows) < TABLE_ROWS:
            found = "\n".join(
                f"{finding.label} {finding.score:.2f} ({len(finding.boxes)} box{'es' * (len(finding.boxes) != 1)})"
                for finding in result.positive
            )
            overlay = str(self._folder.folder / files["overlay"]) if self._folder and "overlay" in files else ""
            self._rows.append((source.path, found or "no finding", overlay))

    def show(self, console: Console) -> None:
        """Print the table of findings and the places of the files."""
        if self._rows:
            table = Table(show_lines=True)
            for column in ("film", "findings", "overlay") if self._folder else ("film", "findings"):
                table.add_column(column, overflow="fold")
            for row in self._rows:
                table.add_row(*(Text(cell) for cell in row[: len(table.columns)]))
            console.print(table)
        more = f" ({self.done - len(self._rows)} not shown)" if self.done > len(self._rows) else ""
        failed = f", {self.failed} failed" if self.failed else ""
        console.print(f"{self.done} films localized{more}{failed}", highlight=False)
        if self._folder:
            report = self._folder.folder / REPORT
            console.print(f"files: {self._folder.folder}", highlight=False, markup=False, soft_wrap=True)
            if report.exists():
                console.print(f"report: {report}", highlight=False, markup=False, soft_wrap=True)
