"""Results on their way out: one JSON line each to stdout, files into the folder of --out."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from itertools import takewhile
from pathlib import Path
from types import TracebackType
from typing import Any

from msloc_edge._files import TEMPORARY, atomic_write, writing
from msloc_edge.cli.inputs import STDIN, Source
from msloc_edge.cli.lines import Lines
from msloc_edge.errors import MslocError, OutputError
from msloc_edge.imaging.preprocess import Prepared
from msloc_edge.journal import Item, Journal
from msloc_edge.objects import KINDS as OBJECTS
from msloc_edge.objects import AnySource, NotAnalysed, Written, require_highdicom, write_objects
from msloc_edge.pipeline import Localizer
from msloc_edge.render.heatmap import encode, write_heatmap
from msloc_edge.render.overlay import overlay
from msloc_edge.render.panel import operating_point
from msloc_edge.render.report import PAGES, Report
from msloc_edge.result import Result

KINDS = ("json", "overlay", "heatmap", "report")
RESULTS, FAILURES, REPORT, JOURNAL = "results.jsonl", "failures.jsonl", "report.html", "journal.sqlite"
SUFFIXES = {"overlay": ".overlay.png", "heatmap": ".heatmap.npy", "heatmap_png": ".heatmap.png"}
SUFFIXES |= {kind: f".{kind}.dcm" for kind in OBJECTS}
"""Kind of a film's file -> what its name ends with."""

RECEIVED, WRITTEN = "received", "written"
"""Steps of a film in the journal."""


class OutputFolder:
    """The files of one run, and of the runs that it goes on with. Every one appears under its name only when it is
    whole; the lines grow, one by one, and are there for good, whatever ends the program.

        results.jsonl       one line per film, schema msloc-edge/result/1, with the names of its files
        failures.jsonl      one line per input that failed, if any: input, reason, message
        NAME.overlay.png    the film with outlines, boxes and scores
        NAME.heatmap.npy    float32 [J, h, w]: M_k of the localized classes, logit units, over the film
        NAME.heatmap.png    the same as 8-bit grey on an absolute scale: 128 is the finding's threshold
        NAME.sr.dcm, ...    DICOM objects, for DICOM films (msloc_edge/objects)
        report.html         all films, self-contained; with report-2.html and so on where there are many
        journal.sqlite      what is done, by name and content; held by one run at a time

    settings   what decides the results: a folder holds those of one kind only
    show       how many findings are drawn on a film; None: all
    overwrite  begin anew; otherwise films that are done already stay as they are

    Raises OutputError: out_occupied, journal_unusable, out_unwritable, disk_full.
    """

    def __init__(
        self,
        folder: Path,
        kinds: Collection[str],
        localizer: Localizer,
        settings: Mapping[str, Any],
        show: int | None,
        overwrite: bool = False,
    ) -> None:
        self.folder, self._kinds, self._thresholds, self._show = folder, kinds, localizer.map_thresholds, show
        self._results = Lines(folder / RESULTS) if "json" in kinds else None
        self._failures = Lines(folder / FAILURES)
        self._report: Report | None = None

        self._objects = [kind for kind in OBJECTS if kind in kinds]
        if self._objects:
            require_highdicom()

        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            for name in (RESULTS, FAILURES, REPORT):
                if (folder / name).is_dir():
                    raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(folder / name))
            self._journal = _claim(folder / JOURNAL, overwrite)
            try:
                self._take_over(settings, overwrite)
                if "report" in kinds:
                    title, model = "Localization report", _model(localizer, show)
                    self._report = Report(folder / REPORT, title, model, self._is_noted)
            except BaseException:
                self._journal.close()
                raise

    def _take_over(self, settings: Mapping[str, Any], overwrite: bool) -> None:
        """Go on with the folder as an earlier run left it, killed or not."""
        if overwrite:
            self._remove()
        noted = self._journal.settings()
        if not noted and any((self.folder / name).exists() for name in (RESULTS, REPORT)):
            raise OutputError(
                "out_occupied", f"{self.folder}: holds results without a journal; choose another --out, or --overwrite"
            )
        if different := [key for key in settings if noted and noted.get(key) != settings[key]]:
            raise OutputError(
                "out_occupied",
                f"{self.folder}: holds results of another {different[0]}; choose another --out, or --overwrite",
            )
        if self._results and not (self.folder / RESULTS).exists():
            self._journal.clear()  # somebody removed the lines: the films are done again
        self._journal.settings(settings)
        for scratch in self.folder.glob(TEMPORARY):
            scratch.unlink()
        if self._results:
            self._results.open()
            self._adopt(self._results)
        for record in takewhile(lambda record: not self._is_noted(record), self._failures.backwards()):
            self._note_failure(record)

    def _remove(self) -> None:
        pictures = [name for item in self._journal.find() for name in item.facts.get("files", {}).values()]
        self._journal.clear()  # first: killed from here on, the folder is one without a journal, which nobody adds to
        pages = (page.name for pattern in PAGES for page in self.folder.glob(pattern))
        for name in (RESULTS, FAILURES, *pages, *pictures):
            (self.folder / Path(name).name).unlink(missing_ok=True)

    def _adopt(self, results: Lines) -> None:
        """Note the lines that a kill, or a lost journal page, kept from being noted: the last ones."""
        for record in takewhile(lambda record: not self._is_noted(record), results.backwards()):
            files = record.get("files", {})
            stems = {name.removesuffix(SUFFIXES[kind]) for kind, name in files.items() if kind in SUFFIXES}
            facts = {"files": files, "stem": min(stems, default="")}
            self._journal.add(record["input"], record["sha256"], WRITTEN, facts)

    def __enter__(self) -> OutputFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with writing(self.folder), ExitStack() as parts:  # each is closed, whatever becomes of the others
            for part in (self._journal, self._report, self._results, self._failures):
                if part:
                    parts.callback(part.close)

    def names(self) -> list[tuple[str, str]]:
        """(path, name) of the films that are done: a path keeps the name of its files."""
        return [(item.name, item.facts["stem"]) for item in self._journal.find(step=WRITTEN)]

    def has(self, source: Source) -> bool:
        """Tell whether a film is done, and its file has not changed since."""
        return source.look is not None and any(
            item.facts.get("look") == list(source.look) for item in self._journal.find(source.path, step=WRITTEN)
        )

    def recognize(self, source: Source, sha256: str) -> bool:
        """Tell whether a film of this content is done, under its path or one from which it was moved here."""
        items = self._journal.find(content=sha256, step=WRITTEN)
        for item in items:
            if item.name == source.path:
                self._journal.advance(item, WRITTEN, {"look": source.look})
                return True
        for item in items:
            if STDIN not in (source.path, item.name) and "moved" not in item.facts and not os.path.exists(item.name):
                self._journal.advance(item, WRITTEN, {"moved": source.path})
                self._journal.add(source.path, sha256, WRITTEN, {**item.facts, "look": source.look})
                return True
        return False

    def write(self, source: Source, film: Prepared, result: Result) -> dict[str, str]:
        """Write a film's own files; returns what was written, kind -> file name. Safe in any thread."""
        files, names = {}, {kind: f"{source.stem}{suffix}" for kind, suffix in SUFFIXES.items()}
        with writing(self.folder):
            if "overlay" in self._kinds:
                files["overlay"] = names["overlay"]
                picture = overlay(film.frame.display(), result, map_thresholds=self._thresholds, show=self._show)
                atomic_write(self.folder / names["overlay"], encode(".png", picture))
            if "heatmap" in self._kinds:
                files.update(heatmap=names["heatmap"], heatmap_png=names["heatmap_png"])
                array, image = self.folder / names["heatmap"], self.folder / names["heatmap_png"]
                write_heatmap(result, self._thresholds, array, image)
        return files

    def write_objects(self, source: Source, result: Result | NotAnalysed, film: AnySource) -> Written:
        """Write the DICOM objects that were asked for; `film` is the film's path or content. Safe in any thread."""
        with writing(self.folder):
            return write_objects(result, film, self._objects, self.folder, source.stem)

    def add(self, line: str, source: Source, film: Prepared, result: Result, files: dict[str, str]) -> None:
        """Add a film to the report, to results.jsonl and to the journal, or to none of them."""
        facts = {"files": files, "stem": source.stem, "look": source.look}
        with writing(self.folder), ExitStack() as undo:
            if self._report:
                self._report.add(film.frame.display(), result, files)
                undo.callback(self._report.remove)
            if self._results:
                self._results.add(line)
                undo.callback(self._results.remove, line)
            self._journal.add(source.path, result.sha256, WRITTEN, facts)
            undo.pop_all()
        for item in self._journal.find(source.path, "", RECEIVED):
            self._journal.retry(item)  # it had failed; if it fails so again, that is news

    def add_failure(self, source: Source, error: MslocError) -> None:
        """Add an input that failed to failures.jsonl and to the report, unless it failed so when it was last tried."""
        record = {"input": source.path, "reason": error.reason, "message": error.message}
        if any(item.failed and _is_failure(item, record) for item in self._journal.find(source.path, "", RECEIVED)):
            return
        with writing(self.folder):
            self._failures.add(json.dumps(record))
            if self._report:
                self._report.add_failure(source.path, error.reason, error.message)
            self._note_failure(record)

    def _note_failure(self, record: Mapping[str, str]) -> None:
        item = self._journal.add(record["input"], "", RECEIVED)
        self._journal.fail(item, record["reason"], record["message"])

    def _is_noted(self, record: Mapping[str, Any]) -> bool:
        """Tell whether a line of results.jsonl or failures.jsonl is in the journal."""
        if "sha256" in record:
            return bool(self._journal.find(record["input"], record["sha256"], WRITTEN))
        return any(_is_failure(item, record) for item in self._journal.find(record["input"], "", RECEIVED))


def _is_failure(item: Item, record: Mapping[str, str]) -> bool:
    return (item.reason, item.message) == (record["reason"], record["message"])


def _claim(path: Path, overwrite: bool) -> Journal:
    """Open the journal, which no other run can do before this one has ended."""
    try:
        return Journal(path, exclusive=True, durable=False)
    except OutputError as error:
        if not overwrite or error.reason != "journal_unusable":
            raise
    path.unlink()
    return Journal(path, exclusive=True, durable=False)


def print_line(line: str) -> None:
    """Print a line of data on stdout, at once: a reader at the other end of a pipe sees each film as it is done.

    Raises BrokenPipeError when that reader has gone, otherwise OutputError: out_unwritable, disk_full.
    """
    try:
        with writing(Path("stdout"), "or write elsewhere"):
            sys.stdout.write(line + "\n")
            sys.stdout.flush()
    except OutputError:  # what stdout could not take must not fail once more in Python's own last flush
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise


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
