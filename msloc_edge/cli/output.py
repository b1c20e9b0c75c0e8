"""Results on their way out: one JSON line each to stdout, files into the folder of --out."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable, Collection
from contextlib import ExitStack
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any

from msloc_edge._files import append_whole, atomic_write, temporary_beside
from msloc_edge.cli.inputs import Source
from msloc_edge.errors import MslocError, OutputError
from msloc_edge.imaging.preprocess import Prepared
from msloc_edge.pipeline import Localizer
from msloc_edge.render.heatmap import encode, write_heatmap
from msloc_edge.render.overlay import overlay
from msloc_edge.render.panel import operating_point
from msloc_edge.render.report import Report
from msloc_edge.result import Result

KINDS = ("json", "overlay", "heatmap", "report")
RESULTS, FAILURES, REPORT = "results.jsonl", "failures.jsonl", "report.html"


class OutputFolder:
    """The files of one run. Every one appears under its name only when it is whole.

        results.jsonl       one line per film, schema msloc-edge/result/1, with the names of its files
        failures.jsonl      one line per input that failed, if any: input, reason, message
        NAME.overlay.png    the film with outlines, boxes and scores
        NAME.heatmap.npy    float32 [J, h, w]: M_k of the localized classes, logit units, over the film
        NAME.heatmap.png    the same as 8-bit grey on an absolute scale: 128 is the finding's threshold
        report.html         all films of the run, self-contained

    show  how many findings are drawn on a film; None: all
    live  for a run without an end: results.jsonl grows in place, line by line

    Raises OutputError: out_unwritable, disk_full.
    """

    def __init__(
        self, folder: Path, kinds: Collection[str], localizer: Localizer, show: int | None, live: bool = False
    ) -> None:
        self.folder, self._kinds, self._thresholds, self._show = folder, kinds, localizer.map_thresholds, show
        self._results: _Lines | None = None
        self._report: Report | None = None
        self._failures = _Lines(folder / FAILURES, live)

        def start() -> None:
            folder.mkdir(parents=True, exist_ok=True)
            for name in (RESULTS, REPORT):
                if (folder / name).is_dir():
                    raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(folder / name))
            (folder / FAILURES).unlink(missing_ok=True)
            if "json" in kinds:
                self._results = _Lines(folder / RESULTS, live)
                self._results.open()
            if "report" in kinds:
                try:
                    self._report = Report(folder / REPORT, "Localization report", _model(localizer, show))
                except BaseException:
                    if self._results:
                        self._results.discard()
                    raise

        _writing(folder, start)

    def __enter__(self) -> OutputFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        def finish() -> None:
            with ExitStack() as parts:  # each is closed, whatever becomes of the others
                for part in (self._report, self._results, self._failures):
                    if part:
                        parts.callback(part.close)

        _writing(self.folder, finish)

    def write(self, source: Source, film: Prepared, result: Result) -> dict[str, str]:
        """Write a film's own files; returns what was written, kind -> file name. Safe in any thread."""
        files = {}

        def pictures() -> None:
            if "overlay" in self._kinds:
                files["overlay"] = f"{source.stem}.overlay.png"
                picture = overlay(film.frame.display(), result, map_thresholds=self._thresholds, show=self._show)
                atomic_write(self.folder / files["overlay"], encode(".png", picture))
            if "heatmap" in self._kinds:
                files["heatmap"] = f"{source.stem}.heatmap.npy"
                files["heatmap_png"] = f"{source.stem}.heatmap.png"
                array, image = self.folder / files["heatmap"], self.folder / files["heatmap_png"]
                write_heatmap(result, self._thresholds, array, image)

        _writing(self.folder, pictures)
        return files

    def add(self, line: str, film: Prepared, result: Result, files: dict[str, str]) -> None:
        """Add a film to results.jsonl and to the report, in the order of the inputs."""

        def append() -> None:
            if self._results:
                self._results.add(line)
            if self._report:
                self._report.add(film.frame.display(), result, files)

        _writing(self.folder, append)

    def add_failure(self, source: Source, error: MslocError) -> None:
        """Add an input that failed to failures.jsonl and to the report."""

        def append() -> None:
            record = {"input": source.path, "reason": error.reason, "message": error.message}
            self._failures.add(json.dumps(record))
            if self._report:
                self._report.add_failure(source.path, error.reason, error.message)

        _writing(self.folder, append)


def print_line(line: str) -> None:
    """Print a line of data on stdout, at once: a reader at the other end of a pipe sees each film as it is done.

    Raises BrokenPipeError when that reader has gone, otherwise OutputError: out_unwritable, disk_full.
    """

    def put() -> None:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    try:
        _writing(Path("stdout"), put)
    except OutputError:  # what stdout could not take must not fail once more in Python's own last flush
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise


class _Lines:
    """A file of JSON lines: written beside and renamed, or, when `live`, in place. Every line in it is whole."""

    def __init__(self, path: Path, live: bool) -> None:
        self._path = path
        self._at = path if live else temporary_beside(path)
        self._file: FileIO | None = None

    def open(self) -> None:
        self._file = self._at.open("wb", buffering=0)

    def add(self, line: str) -> None:
        if not self._file:
            self.open()
        assert self._file
        append_whole(self._file, f"{line}\n".encode())

    def close(self) -> None:
        if self._file:
            try:
                self._file.close()
                self._at.replace(self._path)
            except BaseException:
                self.discard()
                raise
            self._file = None

    def discard(self) -> None:
        if self._file:
            self._file.close()
            self._file = None
            if self._at != self._path:
                self._at.unlink(missing_ok=True)


def _writing(folder: Path, action: Callable[[], None]) -> None:
    """Run `action`; an OSError becomes an OutputError that says what to do."""
    try:
        action()
    except BrokenPipeError:
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OutputError("disk_full", f"{folder}: no space left; free some, or choose another --out") from error
        where = error.filename or folder
        raise OutputError(
            "out_unwritable", f"{where}: cannot be written ({error.strerror or error}); choose another --out"
        ) from error


def _model(localizer: Localizer, show: int | None) -> dict[str, Any]:
    bundle = localizer.bundle
    return {
        "operating_point": ". ".join(operating_point(localizer.operating_point)),
        "show": show,
        "name": bundle.name,
        "version": bundle.version,
        "sha256": bundle.sha256,
        "classes": list(bundle.classes),
        "intended_use": bundle.manifest.get("intended_use", ""),
        "map_thresholds": localizer.map_thresholds,
        "relevance": {label: row.tolist() for label, row in zip(bundle.classes, bundle.relevance, strict=True)},
    }
