"""A run of `infer`: films through the localizer, each result to its place, and the table at the end."""

from __future__ import annotations

import json
import sys
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace

from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from msloc_edge._tables import counted
from msloc_edge.cli.inputs import STDIN, Source
from msloc_edge.cli.output import REPORT, OutputFolder, print_line
from msloc_edge.errors import WARNINGS, InputError, InternalError, MslocError, OutputError, printable
from msloc_edge.imaging.preprocess import Prepared
from msloc_edge.imaging.reading import MAX_MEMORY
from msloc_edge.objects import NotAnalysed
from msloc_edge.pipeline import Localizer, Outcome, guarded
from msloc_edge.result import Result

TABLE_ROWS = 40


class Session:
    """Localizes films in order, names every failure, goes on after it unless `fail_fast`."""

    def __init__(
        self,
        localizer: Localizer,
        folder: OutputFolder | None,
        progress: Progress,
        batch: int,
        workers: int,
        frame: int | None,
        fail_fast: bool,
        uids: bool = True,
    ) -> None:
        self.done, self.before, self.refused, self.failed, self.stopped = 0, 0, 0, 0, False
        self.lacking = 0  # films localized, but without an object that was asked for
        self._localizer, self._folder, self._progress = localizer, folder, progress
        self._batch, self._workers, self._frame, self._fail_fast = batch, workers, frame, fail_fast
        self._uids = uids
        self._to_stdout = folder is None or not sys.stdout.isatty()
        self._rows: list[tuple[str, str, str]] = []
        self._stdin = b""

    def localize(self, sources: list[Source]) -> None:
        """Localize those of `sources` that the folder does not have; one thread writes while the backend runs on."""
        new = [source for source in sources if not (self._folder and self._folder.has(source))]
        self.before += len(sources) - len(new)
        task = self._progress.add_task("films", total=len(new))
        if any(source.path == STDIN for source in new):
            # Here: a thread that waits for stdin could not be interrupted. One byte too many is refused as a film.
            self._stdin = sys.stdin.buffer.read(MAX_MEMORY + 1)
        with (
            closing(self._localizer.stream(new, self._load, self._batch, self._workers)) as outcomes,
            ThreadPoolExecutor(1, thread_name_prefix="write") as writer,
        ):
            writing: deque[Future[None]] = deque()
            for outcome in outcomes:
                writing.append(writer.submit(self._put, outcome))
                while writing and (writing[0].done() or len(writing) > 2):
                    writing.popleft().result()
                    self._progress.advance(task)
                if self.stopped:
                    break
            for future in writing:
                future.result()
        self._progress.remove_task(task)

    def _content(self, source: Source) -> str | bytes:
        return self._stdin if source.path == STDIN else source.path

    def _load(self, source: Source) -> Prepared:
        return self._localizer.prepare(self._content(source), self._frame)

    def _put(self, outcome: Outcome[Source]) -> None:
        """Bring one film to its places, as soon as it is there."""
        if self.stopped:
            return
        source, film, result = outcome.film, outcome.prepared, outcome.result
        if film is None or result is None:
            error = outcome.error or InternalError("internal_error", f"{source.path}: no result")
            self._fail(source, error)
            self._write_refusal(source, error)
        elif self._folder and self._folder.recognize(source, result.sha256):
            self.before += 1
        else:
            files = guarded(self._write)(outcome)
            if isinstance(files, MslocError):
                self._fail(source, files)
            else:
                self._finish(source, film, result, files)

    def _write(self, outcome: Outcome[Source]) -> dict[str, str]:
        source, film, result = outcome.film, outcome.prepared, outcome.result
        if not (self._folder and film and result):
            return {}
        files = self._folder.write(source, film, result)
        objects, left_out = self._folder.write_objects(source, result, self._content(source))
        for error in {error.message: error for error in left_out.values()}.values():
            self._say(source, error)
        self.lacking += bool(left_out)
        return files | {kind: path.name for kind, path in objects.items()}

    def _write_refusal(self, source: Source, error: MslocError) -> None:
        """Leave a DICOM film that cannot be read a report that says so, where it has a header."""
        if self._folder and isinstance(error, InputError):
            refusal = NotAnalysed.of(error, self._localizer.bundle.id, self._localizer.operating_point)
            try:
                self._folder.write_objects(source, refusal, self._content(source))
            except OutputError as unwritable:
                self._say(source, unwritable)

    def _finish(self, source: Source, film: Prepared, result: Result, files: dict[str, str]) -> None:
        record = (result if self._uids else replace(result, uids=None)).to_dict()
        if files:
            record["files"] = files
        line = json.dumps(record, allow_nan=False)
        if self._folder:
            try:
                self._folder.add(line, source, film, result, files)
            except OutputError as error:
                self._fail(source, error)
                return
        if self._to_stdout:
            print_line(line)
        if result.refused:
            self._refuse(source, result.refused)
        else:
            self.done += 1
        self._row(source, result, files)

    def _refuse(self, source: Source, reason: str) -> None:
        """Name a film that was refused: it has its result line, but nobody looked for findings on it."""
        why = (
            f"expected an upright frontal film of the chest, but {WARNINGS[reason]}; look at it, or use --no-input-gate"
        )
        self._say(source, InputError(reason, why))
        self.refused += 1
        self.stopped = self._fail_fast

    def _fail(self, source: Source, error: MslocError) -> None:
        self._say(source, error)
        self.failed += 1
        self.stopped = self._fail_fast
        if self._folder:
            try:
                self._folder.add_failure(source, error)
            except OutputError as unwritable:
                if unwritable.reason != error.reason:
                    self._say(source, unwritable)

    def _say(self, source: Source, error: MslocError) -> None:
        name = printable(source.path)
        film = "" if name in error.message else f"{name}: "
        self._progress.console.print(
            f"msloc-edge: [{error.reason}] {film}{error.message}", markup=False, soft_wrap=True
        )

    def _row(self, source: Source, result: Result, files: dict[str, str]) -> None:
        if len(self._rows) < TABLE_ROWS:
            found = "\n".join(
                f"{finding.label} {finding.score:.2f} ({counted(len(finding.boxes), 'box', 'boxes')})"
                for finding in result.positive
            )
            overlay = str(self._folder.folder / files["overlay"]) if self._folder and "overlay" in files else ""
            nothing = f"refused: {result.refused}" if result.refused else "no finding"
            self._rows.append((printable(source.path), found or nothing, printable(overlay)))

    def show(self, console: Console, passed_over: Mapping[str, str], verbose: bool) -> None:
        """Print the table of findings, the places of the files, and what was passed over: how many, or each."""
        if self._rows:
            table = Table(show_lines=True)
            for column in (
                ("film", "findings", "overlay") if any(row[-1] for row in self._rows) else ("film", "findings")
            ):
                table.add_column(column, overflow="fold")
            for row in self._rows:
                table.add_row(*(Text(cell) for cell in row[: len(table.columns)]))
            console.print(table)
        shown = self.done + self.refused - len(self._rows)
        more = f" ({shown} not shown)" if shown > 0 else ""
        before = f", {self.before} done before" if self.before else ""
        refused = f", {self.refused} refused" if self.refused else ""
        failed = f", {self.failed} failed" if self.failed else ""
        lacking = f", {self.lacking} without an object that was asked for" if self.lacking else ""
        console.print(
            f"{counted(self.done, 'film')} localized{more}{before}{refused}{failed}{lacking}", highlight=False
        )
        if passed_over and not verbose:
            files = counted(len(passed_over), "file")
            console.print(f"{files} in the folders passed over; --verbose names them", highlight=False)
        for path, why in sorted(passed_over.items()) if verbose else ():
            console.print(f"passed over: {printable(path)} ({why})", highlight=False, markup=False, soft_wrap=True)
        if self._folder:
            report = self._folder.folder / REPORT
            console.print(
                f"files: {printable(str(self._folder.folder))}", highlight=False, markup=False, soft_wrap=True
            )
            if report.exists():
                console.print(f"report: {printable(str(report))}", highlight=False, markup=False, soft_wrap=True)
