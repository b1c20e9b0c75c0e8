"""msloc-edge eval: a model, or anybody's heatmaps, against labels, boxes and masks."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Protocol

import click

from msloc_edge.backends import BACKENDS, DEFAULT_BACKEND
from msloc_edge.errors import BackendError, MslocError, OutputError, TrainError

if TYPE_CHECKING:
    from msloc_edge.pipeline import Localizer
    from msloc_edge.train.data import Record
    from msloc_edge.train.evaluate.cases import Case
    from msloc_edge.train.evaluate.evidence import Evidence
    from msloc_edge.train.evaluate.heatmaps import HeatmapFolder
    from msloc_edge.train.evaluate.measure import FilmMaps, FilmMeasures
    from msloc_edge.train.evaluate.truth import Truth
    from msloc_edge.types import Result

FROC_FILMS = 200
"""Films without any box whose maps are made, to count false boxes on them."""

SHOWN_PROBLEMS = 8
PLAIN_WIDTH = 200
"""Columns of the tables where stderr is no terminal, which would tell its own."""

_PATH = click.Path(path_type=Path)


@click.command("eval")
@click.option("--model", default=None, help="Bundle folder, shipped model, run folder or checkpoint.")
@click.option("--heatmaps", type=_PATH, default=None, help="Folder of maps instead: NAME/LABEL.npy or NAME.LABEL.png.")
@click.option("--thresholds", default=None, help="Map thresholds for --heatmaps: 0.4, or Mass=0.4,Nodule=0.3.")
@click.option("--scores", type=_PATH, default=None, help="Scores for --heatmaps: a csv with image,label,score.")
@click.option("--data", required=True, help="Films and labels: nih:DIR or csv:FILE.")
@click.option("--split", default=None, help="train, validation, train_val, test or all.  [default: test; csv: all]")
@click.option("--boxes", type=_PATH, default=None, help="True boxes: a csv with image,label,x,y,w,h in picture pixels.")
@click.option("--masks", type=_PATH, default=None, help="True masks: a COCO json.")
@click.option(
    "--map", "mapped", multiple=True, metavar="NEW=A+B", help="A finding made of the model's own; repeatable."
)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder for the results.")
@click.option("--backend", type=click.Choice(list(BACKENDS)), default=DEFAULT_BACKEND, show_default=True)
@click.option("--device", default=None, help="Device as the backend names it.  [default: cpu]")
@click.option("--profile", default=None, help="Threshold profile whose map thresholds are used.")
@click.option("--limit", type=click.IntRange(1), default=None, help="Only the first N films.")
@click.option(
    "--resamples", type=click.IntRange(0, 100_000), default=1000, show_default=True, help="For the intervals."
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--batch", type=click.IntRange(1, 256), default=1, show_default=True, help="Films per engine call.")
@click.option("-q", "--quiet", is_flag=True, help="No progress and no tables on stderr; problems are still named.")
def command(
    model: str | None,
    heatmaps: Path | None,
    thresholds: str | None,
    scores: Path | None,
    data: str,
    split: str | None,
    boxes: Path | None,
    masks: Path | None,
    mapped: tuple[str, ...],
    out: Path,
    backend: str,
    device: str | None,
    profile: str | None,
    limit: int | None,
    resamples: int,
    seed: int,
    batch: int,
    quiet: bool,
) -> None:
    """Score a model, or a folder of heatmaps, on films with labels and boxes.

    OUT gets metrics.json, metrics.csv and eval.html: AUROC, AP, sensitivity and specificity, the protocol of Wang et
    al. 2017, largest blob, pointing game, mean IoU, MaxBoxAccV2, FROC, subgroups, with 95% intervals by bootstrap over
    patients, beside maps that know nothing of the film. docs/evaluation.md says how each is defined.
    """
    from rich.console import Console

    try:
        from msloc_edge.train.data import open_collection
        from msloc_edge.train.evaluate.evidence import parse_mapping
        from msloc_edge.train.evaluate.heatmaps import HeatmapFolder, parse_thresholds
    except ImportError as error:
        from msloc_edge.cli.train import NEEDS

        raise BackendError("backend_missing", f"eval needs {error.name}; install it with: {NEEDS}") from error

    if (model is None) == (heatmaps is None):
        raise click.UsageError("expected one of --model and --heatmaps")
    if heatmaps is None and (thresholds or scores):
        raise click.UsageError("--thresholds and --scores belong to --heatmaps; a bundle has its own")
    if boxes and masks:
        raise click.UsageError("expected one of --boxes and --masks")
    try:
        mapping = parse_mapping(mapped)
        limits = parse_thresholds(thresholds) if thresholds else {}
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    console = Console(stderr=True)
    if not console.is_terminal:
        console = Console(stderr=True, width=PLAIN_WIDTH)
    split = split or ("all" if data.startswith("csv:") else "test")
    collection = open_collection(data, split)
    records = collection.records[:limit]
    if not records:
        raise TrainError(
            "data_empty", f"{data}: expected films in the split {split!r}, found none; choose another --split"
        )
    truth = _truth(collection, records, boxes, masks)
    with ExitStack() as stack:
        source: _Source
        if heatmaps:
            source = _HeatmapSource(
                HeatmapFolder(heatmaps, limits, scores), mapping, [*collection.classes, *truth.labels]
            )
        else:
            localizer = stack.enter_context(_localizer(model or "", backend, device, profile))
            source = _ModelSource(localizer, backend, mapping, batch)
        run = _Run(source, records, truth, collection.classes, resamples, seed, console, quiet)
        metrics = run.metrics(
            {
                "command": shlex.join(["msloc-edge", *sys.argv[1:]]),
                "data": data,
                "split": split,
                "labels_by": ", ".join(f"{new} = {' + '.join(parts)}" for new, parts in mapping.items())
                or "their names",
                "problems": [*collection.problems, *truth.problems],
            }
        )
        pictures = run.pictures()
    _write(out, metrics, pictures)
    run.tell(out, metrics)
    if run.failed:
        sys.exit(1)


class _Source(Protocol):
    """What gives maps and scores."""

    problems: list[str]

    @property
    def main_row(self) -> str:
        """What the row of its own maps is called."""

    @property
    def parts(self) -> Mapping[str, Sequence[str]]:
        """Finding -> the source's own labels that make it up."""

    def about(self) -> dict[str, Any]:
        """Name, version and hash, the threshold rule, whatever else a reader must know."""

    def films(self, records: Sequence[Record], localize: bool) -> Generator[tuple[Record, FilmMaps | MslocError]]:
        """The films in order; their maps are asked for only where `localize`."""


class _ModelSource:
    """A model in an engine. Its other rows: half of each map's own range, and each stage by itself."""

    main_row = "model"

    def __init__(self, localizer: Localizer, backend: str, mapping: Mapping[str, Sequence[str]], batch: int) -> None:
        from msloc_edge.train.evaluate.evidence import resolve_labels

        self.problems: list[str] = []
        self.parts = resolve_labels(localizer.bundle.classes, mapping)
        self._localizer, self._backend, self._batch = localizer, backend, batch
        bundle = localizer.bundle
        self._limits = {
            name: dict(zip(bundle.classes, profile.score, strict=True)) for name, profile in bundle.profiles.items()
        }

    def about(self) -> dict[str, Any]:
        bundle = self._localizer.bundle
        name = next(name for name, profile in bundle.profiles.items() if profile is self._localizer.profile)
        training = bundle.manifest.get("training")
        fitted = bundle.manifest.get("calibration") or (training or {}).get("method")
        return {
            "what": {"name": bundle.name, "version": bundle.version, "sha256": bundle.sha256},
            "backend": self._backend,
            "threshold_rule": f"absolute, one per class, of the bundle's profile {name}; a mapped finding is where one "
            "of its parts exceeds its own threshold",
            "thresholds_fitted_on": fitted or "the bundle does not say",
            "map_thresholds": {label: round(value, 5) for label, value in self._localizer.map_thresholds.items()},
        }

    def films(self, records: Sequence[Record], localize: bool) -> Generator[tuple[Record, FilmMaps | MslocError]]:
        self._localizer.all_classes = localize
        prepare = self._localizer.prepare
        with closing(self._localizer.stream(records, lambda record: prepare(record.path), self._batch)) as outcomes:
            for outcome in outcomes:
                if outcome.result is not None:
                    yield outcome.film, self._film(outcome.result)
                elif outcome.error is not None:
                    yield outcome.film, outcome.error

    def _film(self, result: Result) -> FilmMaps:
        from msloc_edge.train.evaluate.evidence import Evidence
        from msloc_edge.train.evaluate.measure import FilmMaps

        bundle, geometry = self._localizer.bundle, result.geometry
        own = {finding.label: finding.score for finding in result.findings}

        def main(label: str) -> Evidence:
            return Evidence.union(
                [Evidence.above(result.maps[part], self._localizer.map_thresholds[part]) for part in self.parts[label]]
            )

        def others(label: str) -> dict[str, Evidence]:
            parts = self.parts[label]
            rows = {"model_half_range": _highest([result.maps[part] for part in parts])}
            stages = len(bundle.stages)
            for stage in range(stages if stages > 1 else 0):
                name = "stages_last" if stage == stages - 1 else f"stage_{stage + 1}"
                rows[name] = _highest([_stage_map(result, part, stage) for part in parts])
            return rows

        return FilmMaps(
            (geometry.image_height, geometry.image_width),
            {label: max(own[part] for part in parts) for label, parts in self.parts.items()},
            {
                name: {label: any(own[part] >= mine[part] for part in parts) for label, parts in self.parts.items()}
                for name, mine in self._limits.items()
            },
            main,
            others,
        )


class _HeatmapSource:
    """A folder of maps of whatever origin."""

    main_row = "heatmaps"

    def __init__(self, folder: HeatmapFolder, mapping: Mapping[str, Sequence[str]], candidates: Sequence[str]) -> None:
        from msloc_edge.train.evaluate.evidence import resolve_labels

        wanted = dict.fromkeys([*candidates, *(part for parts in mapping.values() for part in parts)])
        self._folder, self.problems = folder, folder.problems
        self.parts = resolve_labels(folder.labels(wanted), mapping)

    def about(self) -> dict[str, Any]:
        limits = self._folder.thresholds
        return {
            "what": {"name": str(self._folder.folder), "version": None, "sha256": None},
            "threshold_rule": "absolute, as given; half of each map's own range where none is"
            if limits
            else "half of each map's own range",
            "map_thresholds": {label or "every finding": value for label, value in limits.items()},
        }

    def films(self, records: Sequence[Record], localize: bool) -> Generator[tuple[Record, FilmMaps | MslocError]]:
        for record in records:
            try:
                yield record, self._folder.film(record, self.parts)
            except MslocError as error:
                yield record, error


class _Run:
    """One evaluation: which films need maps, measuring them, the figures, the pictures."""

    def __init__(
        self,
        source: _Source,
        records: Sequence[Record],
        truth: Truth,
        classes: Sequence[str],
        resamples: int,
        seed: int,
        console: Any,
        quiet: bool,
    ) -> None:
        import numpy as np

        self._source, self._resamples, self._seed = source, resamples, seed
        self._console, self._quiet = console, quiet
        self._records = {record.name: record for record in records}
        left_out = [label for label in truth.labels if label not in source.parts]
        self._problems = [
            f"{label}: {sum(label in found for found in truth.regions.values())} films with boxes, and no such finding "
            f'among those scored; --map "{label}=..." names what makes it up'
            for label in left_out
        ]
        if truth.labels and len(left_out) == len(truth.labels):
            raise TrainError(
                "label_unknown",
                f"{truth.source}: expected boxes of {', '.join(source.parts) or 'the findings with maps'}, got "
                f'{", ".join(left_out)}; add --map "{left_out[0]}=A+B"',
            )
        self._truth = truth.only(list(self._records), list(source.parts))
        self._labels = tuple(label for label in classes if label in source.parts)
        if not self._labels and not self._truth.count:
            raise TrainError(
                "label_unknown",
                f"expected labels or boxes of {', '.join(source.parts) or 'the findings with maps'}, got "
                f'{", ".join(classes)}; --map "New=A+B" names what makes a finding up',
            )
        boxed = [name for name in self._records if name in self._truth.regions]
        others = [name for name in self._records if name not in self._truth.regions]
        rng = np.random.default_rng(seed)
        some = set(rng.permutation(len(others))[: FROC_FILMS if boxed else 0].tolist())
        sampled = {name for at, name in enumerate(others) if at in some}
        self._localized = [name for name in self._records if name in self._truth.regions or name in sampled]
        self._plain = [name for name in others if name not in sampled]
        self._measured: list[FilmMeasures] = []
        self._errors: list[str] = []

    @property
    def failed(self) -> bool:
        """Whether some film could not be read or localized."""
        return bool(self._errors)

    def metrics(self, about: Mapping[str, Any]) -> dict[str, Any]:
        """Measure all films: the content of metrics.json. `about` is told in it."""
        from msloc_edge.train.evaluate.summary import Summary
        from msloc_edge.train.evaluate.write import SCHEMA

        self._measured = list(self._measure())
        if not self._measured:
            raise TrainError("data_empty", f"none of {len(self._records)} films could be scored: {self._errors[0]}")
        names = {film.name for film in self._measured}
        truth = self._truth.only(sorted(names), list(self._source.parts))
        summary = Summary(self._measured, self._records, truth, self._source.main_row, self._resamples, self._seed)
        tables = summary.tables(self._labels)
        problems = [*about["problems"], *self._problems, *self._errors, *dict.fromkeys(self._source.problems)]
        return {
            "schema": SCHEMA,
            "run": {
                **self._source.about(),
                **about,
                "versions": _versions(),
                "films": len(self._measured),
                "films_with_boxes": len(truth.regions),
                "films_for_false_boxes": len([name for name in self._localized if name in names]),
                "patients": summary.patients,
                "boxes": truth.count,
                "boxes_by_class": {
                    label: sum(len(found.get(label, ())) for found in truth.regions.values()) for label in truth.labels
                },
                "truth": truth.source,
                "truth_kind": truth.kind,
                "findings": list(self._labels),
                "intervals": f"95%, {self._resamples} bootstrap resamples of patients, seed {self._seed}",
                "problems": problems,
            },
            **tables,
        }

    def pictures(self) -> list[tuple[Case, Any]]:
        """The best, median and worst finding of each class, drawn."""
        from msloc_edge.reading import read_frame
        from msloc_edge.train.evaluate.cases import choose_cases, draw_case

        cases = choose_cases(self._measured, self._source.main_row, self._truth.labels)
        films = dict.fromkeys(case.film for case in cases)
        drawn = {}
        with closing(self._source.films([self._records[name] for name in films], localize=True)) as found:
            for record, maps in found:
                if isinstance(maps, MslocError):
                    continue  # it was read once before: the file has gone since
                display = read_frame(record.path).display()
                for case in cases:
                    if case.film == record.name:
                        drawn[case] = draw_case(
                            display, maps.main(case.label), self._truth.regions[case.film][case.label]
                        )
        return [(case, drawn[case]) for case in cases if case in drawn]

    def tell(self, out: Path, metrics: Mapping[str, Any]) -> None:
        """Tables, problems and where the files are, on stderr."""
        from msloc_edge.train.evaluate.tables import print_grids

        def say(text: str) -> None:
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)

        if not self._quiet:
            print_grids(metrics, self._console)
        problems = metrics["run"]["problems"]
        for problem in problems[:SHOWN_PROBLEMS]:
            say(f"msloc-edge: {problem}")
        if len(problems) > SHOWN_PROBLEMS:
            say(f"msloc-edge: {len(problems) - SHOWN_PROBLEMS} more problems are named in metrics.json")
        if not self._quiet:
            say(f"{metrics['run']['films']} films scored, {len(problems)} problems; page: {out / 'eval.html'}")

    def _measure(self) -> Iterator[FilmMeasures]:
        from rich.progress import Progress

        from msloc_edge.pipeline import in_order
        from msloc_edge.train.evaluate.measure import measure_film
        from msloc_edge.train.evaluate.priors import Priors

        patients = {name: record.patient for name, record in self._records.items()}
        priors = Priors(self._truth, patients, self._seed)

        def measure(item: tuple[Record, FilmMaps | MslocError]) -> FilmMeasures:
            record, maps = item
            if isinstance(maps, MslocError):
                raise maps
            regions = self._truth.regions.get(record.name, {})
            absent = [
                label
                for label in self._truth.labels
                if localize and label not in regions and record.labels.get(label) == 0
            ]
            return measure_film(record.name, maps, regions, absent, self._source.main_row, priors)

        silent = self._quiet or not self._console.is_terminal
        with Progress(console=self._console, disable=silent, transient=True) as progress:
            task = progress.add_task("films", total=len(self._records))
            for names, localize in ((self._localized, True), (self._plain, False)):
                records = [self._records[name] for name in names]
                with (
                    closing(self._source.films(records, localize)) as films,
                    ThreadPoolExecutor(max(2, os.cpu_count() or 2), thread_name_prefix="measure") as pool,
                    closing(in_order(pool, measure, films, ahead=4)) as measured,
                ):
                    for (record, _), found in measured:
                        progress.advance(task)
                        if isinstance(found, MslocError):
                            name = "" if record.name in found.message else f"{record.name}: "
                            self._errors.append(f"[{found.reason}] {name}{found.message}")
                        else:
                            yield found


def _truth(collection: Any, records: Sequence[Record], boxes: Path | None, masks: Path | None) -> Truth:
    from msloc_edge.train.evaluate.truth import collection_boxes, read_boxes, read_masks

    if boxes:
        return read_boxes(boxes, records)
    if masks:
        return read_masks(masks, records)
    return collection_boxes(collection, records)


@contextmanager
def _localizer(model: str, backend: str, device: str | None, profile: str | None) -> Iterator[Localizer]:
    """A model in its engine; a checkpoint or a run folder is exported into a temporary bundle first."""
    from msloc_edge.bundle import MANIFEST
    from msloc_edge.pipeline import Localizer

    path = Path(model)
    with TemporaryDirectory(prefix="msloc-eval-") as folder:
        bundle: str | Path = model
        if path.is_file() or (path.is_dir() and not (path / MANIFEST).exists()):
            from msloc_edge.cli.export import write_bundle
            from msloc_edge.train.checkpoint import load_state

            bundle = Path(folder) / "bundle"
            write_bundle(load_state(path), bundle, name=path.name, version="0")
        with Localizer(bundle, backend, device, profile) as localizer:
            yield localizer


def _stage_map(result: Result, label: str, stage: int) -> Any:
    """One stage's class map [h, w] over the film's area of the input."""
    import numpy as np

    from msloc_edge.fusion import fuse_cams

    geometry = result.geometry
    size = geometry.input_height, geometry.input_width
    whole = fuse_cams([result.stage_maps[label][stage][None]], np.ones((1, 1), np.float32), size, [0])[0]
    return whole[geometry.content]


def _highest(maps: Sequence[Any]) -> Evidence:
    """The pixel-wise maximum of maps, with regions above the middle of its range."""
    import numpy as np

    from msloc_edge.train.evaluate.evidence import Evidence

    return Evidence.half_range(np.maximum.reduce(list(maps)))


def _versions() -> dict[str, str]:
    import cv2

    import msloc_edge

    names = ("numpy", "scikit-learn", "onnxruntime")
    return {
        "msloc-edge": msloc_edge.__version__,
        "python": platform.python_version(),
        "opencv": cv2.__version__,
        **{name: version(name) for name in names},
    }


def _write(out: Path, metrics: Mapping[str, Any], pictures: Sequence[tuple[Case, Any]]) -> None:
    from importlib import resources

    from msloc_edge.files import atomic_write
    from msloc_edge.train.evaluate.page import page
    from msloc_edge.train.evaluate.write import metrics_csv, metrics_json

    css = (resources.files("msloc_edge.render") / "report.css").read_text(encoding="utf-8")
    contents = {
        "metrics.json": metrics_json(metrics),
        "metrics.csv": metrics_csv(metrics),
        "eval.html": page(metrics, pictures, css),
    }
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, text in contents.items():
            atomic_write(out / name, text.encode("utf-8", "replace"))
    except OSError as error:
        raise OutputError(
            "out_unwritable", f"{error.filename or out}: cannot be written ({error.strerror}); choose another --out"
        ) from error
