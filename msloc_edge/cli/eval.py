"""msloc-edge eval: a model, or anybody's heatmaps, against labels, boxes and masks."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from msloc_edge.backends import BACKENDS, DEFAULT_BACKEND
from msloc_edge.errors import BackendError, OutputError, TrainError

if TYPE_CHECKING:
    from msloc_edge.train.data import Record
    from msloc_edge.train.evaluate.cases import Case
    from msloc_edge.train.evaluate.truth import Truth

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

    try:
        from msloc_edge.cli.console import people
        from msloc_edge.train.data import open_collection
        from msloc_edge.train.evaluate.evidence import parse_mapping
        from msloc_edge.train.evaluate.heatmaps import HeatmapFolder, parse_thresholds
        from msloc_edge.train.evaluate.run import Evaluation
        from msloc_edge.train.evaluate.sources import HeatmapSource, ModelSource, Source, open_model
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
    console = people(width=200)
    split = split or ("all" if data.startswith("csv:") else "test")
    collection = open_collection(data, split)
    if not collection.records:
        raise TrainError(
            "data_empty", f"{data}: expected films in the split {split!r}, found none; choose another --split"
        )
    with ExitStack() as stack:
        source: Source
        records = collection.records[:limit]
        left_out: tuple[str, ...] = ()
        if heatmaps:
            truth = _truth(collection, records, boxes, masks)
            source = HeatmapSource(
                HeatmapFolder(heatmaps, limits, scores), mapping, [*collection.classes, *truth.labels]
            )
        else:
            localizer = stack.enter_context(open_model(model or "", backend, device, profile))
            source = ModelSource(localizer, backend, mapping, batch)
            if "fitting_half" in source.calibration:
                records, left_out = _scoring_half(collection.records, limit)
            truth = _truth(collection, records, boxes, masks)
        run = Evaluation(source, records, truth, collection.classes, resamples, seed, console, quiet)
        metrics = run.metrics(
            {
                "command": shlex.join(["msloc-edge", *sys.argv[1:]]),
                "data": data,
                "split": split,
                "labels_by": ", ".join(f"{new} = {' + '.join(parts)}" for new, parts in mapping.items())
                or "their names",
                "problems": [*collection.problems, *left_out, *truth.problems],
            }
        )
        pictures = run.pictures()
    _write(out, metrics, pictures)
    run.tell(out, metrics)
    if run.failed:
        sys.exit(1)


def _scoring_half(records: Sequence[Record], limit: int | None) -> tuple[tuple[Record, ...], tuple[str, ...]]:
    """The films of the patients whose boxes no threshold was fitted on, and the sentence that tells so."""
    from msloc_edge.train.data.collection import in_fitting_half

    kept = tuple(record for record in records if not in_fitting_half(record.patient))
    if not kept:
        raise TrainError("data_empty", "map thresholds were fitted on the boxes of all these patients; use other films")
    out = len(records) - len(kept)
    told = f"{out} films left out: of the half of the patients on whose boxes the map thresholds were fitted"
    return kept[:limit], (told,)


def _truth(collection: Any, records: Sequence[Record], boxes: Path | None, masks: Path | None) -> Truth:
    from msloc_edge.train.evaluate.truth import collection_boxes, read_boxes, read_masks

    if boxes:
        return read_boxes(boxes, records)
    if masks:
        return read_masks(masks, records)
    return collection_boxes(collection, records)


def _write(out: Path, metrics: Mapping[str, Any], pictures: Sequence[tuple[Case, Any]]) -> None:
    from msloc_edge._files import atomic_write
    from msloc_edge.train.evaluate.page import eval_page
    from msloc_edge.train.evaluate.write import metrics_csv, metrics_json

    contents = {
        "metrics.json": metrics_json(metrics),
        "metrics.csv": metrics_csv(metrics),
        "eval.html": eval_page(metrics, pictures),
    }
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, text in contents.items():
            atomic_write(out / name, text.encode("utf-8", "replace"))
    except OSError as error:
        raise OutputError(
            "out_unwritable", f"{error.filename or out}: cannot be written ({error.strerror}); choose another --out"
        ) from error
