"""Command line: `python -m msloc_edge.train.lesions FILM_OR_FOLDER... --out DIR --seed S`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click
import cv2
import numpy as np

from msloc_edge.errors import InputError, MslocError
from msloc_edge.files import atomic_write
from msloc_edge.train.lesions import KINDS, Lesion, insert
from msloc_edge.train.lesions.graded import read_film

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".dcm")


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


def found(inputs: tuple[Path, ...]) -> list[Path]:
    """The films named, and those directly in the folders named, in order."""
    files = []
    for path in inputs:
        if path.is_dir():
            files += sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
        else:
            files.append(path)
    return files


@click.command()
@click.argument("inputs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder to write to.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Same seed, same lesions.")
@click.option("--kind", type=click.Choice(KINDS), help="Default: each in turn.")
@click.option("--diameter", type=float, help="Pixels of a film 1024 px long. Default: drawn for the kind.")
@click.option("--contrast", type=float, help="Brightness added at the centre, of 1. Default: drawn for the diameter.")
def main(
    inputs: tuple[Path, ...],
    out: Path,
    seed: int,
    kind: str | None,
    diameter: float | None,
    contrast: float | None,
) -> None:
    """Write copies of frontal chest films with one simulated lesion each, as PNG, and OUT/truth.jsonl."""
    files = found(inputs)
    if not files:
        raise click.UsageError(f"expected films ({', '.join(SUFFIXES)}) in the folders named, got none.")
    out.mkdir(parents=True, exist_ok=True)
    failed = 0
    with (out / "truth.jsonl").open("w", encoding="utf-8") as lines:
        for number, path in enumerate(files):
            try:
                rng = np.random.default_rng([seed, number])
                film, lesion = insert(read_film(path), rng, kind or KINDS[number % len(KINDS)], diameter, contrast)
            except InputError as error:
                failed += 1
                click.echo(f"{path}: {error}", err=True)
                continue
            except MslocError as error:
                raise click.UsageError(str(error)) from None
            file = f"{number:06d}-{path.stem}.png"
            atomic_write(out / file, cv2.imencode(".png", film)[1].tobytes())
            lines.write(json.dumps(truth(lesion, file, str(path))) + "\n")
    if failed:
        sys.exit(1)


if __name__ == "__main__":
    main()
