"""msloc-edge eval: a model, or anybody's heatmaps, against labels, boxes and masks."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from msloc_edge._tables import counted
from msloc_edge.backends import BACKENDS, DEFAULT_BACKEND
from msloc_edge.cli.console import needing, people
from msloc_edge.cli.options import device_options
from msloc_edge.train.config import FORMS

if TYPE_CHECKING:
    from rich.console import Console

    from msloc_edge.train.data import Record
    from msloc_edge.train.evaluate.sources import ModelSource, Source

SHOWN_PROBLEMS = 8
_PATH = click.Path(path_type=Path)


@click.command("eval")
@click.option("--model", default=None, help="Bundle folder, shipped model, run folder or checkpoint.")
@click.option(
    "--heatmaps",
    type=_PATH,
    default=None,
    help="Folder of maps instead: NAME/LABEL.npy or NAME.LABEL.png, or of infer --write json,heatmap.",
)
@click.option(
    "--against",
    default=None,
    help="Another model, or folder of maps, on the same films: differences, with intervals by paired bootstrap.",
)
@click.option(
    "--probe",
    type=click.IntRange(1),
    default=None,
    metavar="N",
    help="Run the model again on at most N films with boxes: deletion and insertion, randomised weights, stability.",
)
@click.option("--thresholds", default=None, help="Map thresholds for --heatmaps: 0.4, or Mass=0.4,Nodule=0.3.")
@click.option("--scores", type=_PATH, default=None, help="Scores for --heatmaps: a csv with image,label,score.")
@click.option("--data", required=True, help=f"Films and labels: {FORMS}.")
@click.option(
    "--split", default=None, help="train, validation, train_val, test or all.  [default: test, or all without one]"
)
@click.option("--boxes", type=_PATH, default=None, help="True boxes: a csv with image,label,x,y,w,h in picture pixels.")
@click.option("--masks", type=_PATH, default=None, help="True masks: a COCO json.")
@click.option(
    "--map", "mapped", multiple=True, metavar="NEW=A+B", help="A finding made of the model's own; repeatable."
)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder for the results.")
@click.option("--backend", type=click.Choice(list(BACKENDS)), default=DEFAULT_BACKEND, show_default=True)
@device_options
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
    against: str | None,
    probe: int | None,
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
    precision: str,
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
    from rich.progress import Progress

    with needing("eval"):
        from msloc_edge.train.data import open_collection, require_films
        from msloc_edge.train.data.sources import default_split
        from msloc_edge.train.evaluate.evidence import parse_mapping
        from msloc_edge.train.evaluate.heatmaps import parse_thresholds
        from msloc_edge.train.evaluate.run import Evaluation, scoring_half
        from msloc_edge.train.evaluate.truth import read_truth
        from msloc_edge.train.evaluate.write import write_files

    if (model is None) == (heatmaps is None):
        raise click.UsageError("expected one of --model and --heatmaps")
    if heatmaps is None and (thresholds or scores):
        raise click.UsageError("--thresholds and --scores belong to --heatmaps; a bundle has its own")
    if heatmaps and probe:
        raise click.UsageError("--probe runs a model again, so it belongs to --model")
    if boxes and masks:
        raise click.UsageError("expected one of --boxes and --masks")
    try:
        mapping = parse_mapping(mapped)
        limits = parse_thresholds(thresholds) if thresholds else {}
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    console = people(width=200)
    split = split or default_split(data, "test")
    collection = open_collection(data, split)
    require_films(collection)
    with ExitStack() as stack:

        def run_model(name: str) -> ModelSource:
            return stack.enter_context(_open_model(name, backend, device, precision, profile, mapping, batch))

        records, left_out = collection.records, list[str]()
        other_model = None if against is None or _holds_maps(against) else against
        opened = {name: run_model(name) for name in (model, other_model) if name}
        if any("fitting_half" in source.calibration for source in opened.values()):
            records, told = scoring_half(records)
            left_out.append(told)
        records = records[:limit]
        truth = read_truth(collection, records, boxes, masks)

        def evaluation(name: str, limits: Mapping[str, float], scores: Path | None) -> Evaluation:
            source = opened.get(name) or _open_maps(Path(name), records, limits, scores, mapping, candidates)
            return Evaluation(source, records, truth, collection.classes, resamples, seed)

        candidates = [*collection.classes, *truth.labels]
        run = evaluation(model or str(heatmaps), limits, scores)
        about = {
            "command": shlex.join(["msloc-edge", *sys.argv[1:]]),
            "data": data,
            "split": split,
            "labels_by": ", ".join(f"{new} = {' + '.join(parts)}" for new, parts in mapping.items()) or "their names",
            "problems": [*collection.problems, *left_out, *truth.problems],
        }
        silent = quiet or not console.is_terminal
        with Progress(console=console, disable=silent, transient=True) as progress:
            metrics = run.metrics(about, progress)
            if against:
                other = evaluation(against, {}, None)
                other.measure(progress)
                metrics["against"] = run.against(other)
            if probe:
                metrics["probe"] = run.probe(probe, progress)
        pictures = run.pictures()
    write_files(out, metrics, pictures)
    _tell(console, quiet, out, metrics)
    if run.failed:
        sys.exit(1)


def _holds_maps(name: str) -> bool:
    """Tell a folder of maps from a model: it is neither a bundle nor a run."""
    from msloc_edge.bundle import MANIFEST
    from msloc_edge.train.checkpoint import Run

    folder = Path(name)
    return folder.is_dir() and not (folder / MANIFEST).exists() and not Run(folder).best.exists()


@contextmanager
def _open_model(
    name: str,
    backend: str,
    device: str | None,
    precision: str,
    profile: str | None,
    mapping: Mapping[str, Sequence[str]],
    batch: int,
) -> Iterator[ModelSource]:
    from msloc_edge.cli.export import write_bundle
    from msloc_edge.train.evaluate.sources import ModelSource, open_model

    with open_model(name, backend, device, precision, profile, write_bundle) as localizer:
        yield ModelSource(localizer, backend, mapping, batch)


def _open_maps(
    folder: Path,
    records: Sequence[Record],
    thresholds: Mapping[str, float],
    scores: Path | None,
    mapping: Mapping[str, Sequence[str]],
    candidates: Sequence[str],
) -> Source:
    from msloc_edge.train.evaluate.heatmaps import HeatmapFolder
    from msloc_edge.train.evaluate.inferred import RESULTS, InferredSource
    from msloc_edge.train.evaluate.sources import HeatmapSource

    if (folder / RESULTS).is_file() and not scores:
        return InferredSource(folder, mapping, thresholds)
    maps = HeatmapFolder(folder, [record.name for record in records], thresholds, scores)
    return HeatmapSource(maps, mapping, candidates)


def _tell(console: Console, quiet: bool, out: Path, metrics: Mapping[str, Any]) -> None:
    """Tables, problems and where the files are."""
    from msloc_edge.train.evaluate.tables import print_grids

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    if not quiet:
        print_grids(metrics, console)
    problems = metrics["run"]["problems"]
    for problem in problems[:SHOWN_PROBLEMS]:
        say(f"msloc-edge: {problem}")
    if len(problems) > SHOWN_PROBLEMS:
        say(f"msloc-edge: metrics.json names {counted(len(problems) - SHOWN_PROBLEMS, 'more problem')}")
    if not quiet:
        films = counted(metrics["run"]["films"], "film")
        say(f"{films} scored, {counted(len(problems), 'problem')}; page: {out / 'eval.html'}")
