"""Command line: `python -m msloc_edge.train.lesions FILM_OR_FOLDER... --out DIR --seed S`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click
import cv2
import numpy as np
from numpy.typing import NDArray

from msloc_edge._files import atomic_write
from msloc_edge.errors import InputError, MslocError
from msloc_edge.train.data import SPLITS, open_collection
from msloc_edge.train.lesions import DIAMETERS, KINDS, LABELS, Lesion, graded, insert
from msloc_edge.train.lesions.graded import read_film
from msloc_edge.train.lesions.labels import shown
from msloc_edge.train.tables import write_tables

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".dcm")
CLASSES = tuple(dict.fromkeys(label for labels in LABELS.values() for label in labels))


SEEDS = 100_003
"""More than films: each film of each seed has its own."""


class Source(NamedTuple):
    """A film to put a lesion into."""

    path: Path
    patient: str


def truth(lesion: Lesion, file: str, source: str) -> dict[str, object]:
    """One line of truth.jsonl: what was put where, boxes in pixels from the top left."""
    return {
        "file": file,
        "source": source,
        "kind": lesion.kind,
        "box": dict(zip("xywh", lesion.box, strict=True)),
        "diameter": round(lesion.diameter, 2),
        "contrast": round(lesion.contrast, 4),
    }


def labels_of(kind: str | None) -> dict[str, float]:
    """What is known of a film with a lesion of a kind, or without any."""
    changed = LABELS[kind] if kind else {}
    values = {label: changed.get(label, 0.0) for label in CLASSES}
    return {label: value for label, value in values.items() if not np.isnan(value)}


def found(inputs: tuple[str, ...], split: str) -> Iterator[Source]:
    """The films named, those directly in the folders named, and the normal ones of the collections named."""
    for name in inputs:
        if name.startswith(("nih:", "csv:")):
            for record in open_collection(name, split).records:
                if not any(record.labels.values()):
                    yield Source(record.path, record.patient)
        elif (path := Path(name)).is_dir():
            for file in sorted(path.iterdir()):
                if file.suffix.lower() in SUFFIXES:
                    yield Source(file, file.stem)
        else:
            yield Source(path, path.stem)


@click.command()
@click.argument("inputs", nargs=-1, required=True)
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder to write to.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Same seed, same lesions.")
@click.option("--split", default="validation", show_default=True, type=click.Choice(SPLITS), help="Of nih: and csv:.")
@click.option("--limit", type=click.IntRange(1), help="Only the first N films.")
@click.option("--graded", "by_size", is_flag=True, help="Each film untouched, and with a lesion of every diameter.")
@click.option("--kind", type=click.Choice(KINDS), help="Default: each in turn; with --graded: that of the diameter.")
@click.option("--diameter", type=float, help="Pixels of a film 1024 px long. Default: drawn for the kind.")
@click.option("--contrast", type=float, help="Brightness added at the centre, of 1. Default: drawn for the diameter.")
def main(
    inputs: tuple[str, ...],
    out: Path,
    seed: int,
    split: str,
    limit: int | None,
    by_size: bool,
    kind: str | None,
    diameter: float | None,
    contrast: float | None,
) -> None:
    """Write copies of frontal chest films with one simulated lesion each, as PNG.

    INPUTS are films, folders of films, or the normal films of nih:DIR and csv:FILE. OUT gets truth.jsonl, and films.csv
    and boxes.csv for `msloc-edge eval`.
    """
    if by_size and diameter is not None:
        raise click.UsageError("expected --graded or --diameter, got both")

    def copies(number: int, film: NDArray[np.uint8]) -> Iterator[tuple[NDArray[np.uint8], Lesion | None]]:
        if by_size:
            yield film, None
            yield from graded([film], seed * SEEDS + number, DIAMETERS, kind, contrast)
        else:
            rng = np.random.default_rng([seed, number])
            yield insert(film, rng, kind or KINDS[number % len(KINDS)], diameter, contrast)

    try:
        sources = list(found(inputs, split))[:limit]
    except MslocError as error:
        raise click.UsageError(str(error)) from None
    if not sources:
        raise click.UsageError(f"expected films ({', '.join(SUFFIXES)}), or normal ones in a collection, got none.")
    out.mkdir(parents=True, exist_ok=True)
    failed = 0
    films, boxes = [], []
    with (out / "truth.jsonl").open("w", encoding="utf-8") as lines:
        for number, source in enumerate(sources):
            try:
                for film, lesion in copies(number, read_film(source.path)):
                    size = "" if not by_size else f"-{lesion.diameter:03.0f}" if lesion else "-000"
                    file = f"{number:06d}{size}-{source.path.stem}.png"
                    atomic_write(out / file, cv2.imencode(".png", film)[1].tobytes())
                    films.append((file, source.patient, labels_of(lesion.kind if lesion else None)))
                    if lesion:
                        lines.write(json.dumps(truth(lesion, file, str(source.path))) + "\n")
                        boxes += [(file, label, *lesion.box) for label in shown(lesion.kind)]
            except InputError as error:
                failed += 1
                click.echo(f"{source.path}: {error}", err=True)
            except MslocError as error:
                raise click.UsageError(str(error)) from None
    write_tables(out, CLASSES, films, boxes)
    if failed:
        sys.exit(1)


if __name__ == "__main__":
    main()
